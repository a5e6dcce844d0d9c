"""Names of a spec as names of an emitted file. In: any identifier of the language. Out: an ASCII identifier that is no
word of Python, C++, torch or Triton and no name that an emitted file uses itself; always the same for the same name.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Callable, Collection

from seqc.ir.arguments import Argument
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH
from seqc.ir.program import Program

TIME = "T"

_CPP = """
alignas alignof and_eq asm auto bitand bitor catch char char8_t char16_t char32_t co_await co_return co_yield compl
concept const const_cast consteval constexpr constinit decltype default delete do double dynamic_cast enum explicit
export extern false friend goto inline int8_t int16_t int32_t int64_t long main mutable namespace new noexcept
not_eq nullptr operator or_eq private protected public register reinterpret_cast requires restrict short signed
size_t sizeof static static_assert static_cast std struct switch template this thread_local throw true typedef
typeid typename uint8_t uint16_t uint32_t uint64_t union unsigned using virtual void volatile wchar_t xor_eq
"""

# Attributes of torch.nn.Module (a parameter of that name would hide one), and of the Modules that are emitted.
_MODULE = """
T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda dims double dump_patches eval
extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia
named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ reset_parameters set_extra_state
set_submodule share_memory state_dict step to to_empty train training type xpu zero_grad
"""

# Names that emitted files use: imports, and locals of generated functions.
_FILE = """
B BT NT NamedTuple T Tensor annotations axis carry ctx cu_seqlens device dtype form forward_ad inplace into io library math
needs packed panels reverse saved states_every TYPE_CHECKING segments self tl torch triton warnings way
"""

RESERVED: frozenset[str] = frozenset(
    [*keyword.kwlist, *dir(builtins), *_CPP.split(), *_MODULE.split(), *_FILE.split()],
)


def safe_name(name: str) -> str:
    """The emitted name of `name`: itself where it may stand, otherwise with one underscore more at its end.

    `lambda` becomes `lambda_` (and `lambda_` becomes `lambda__`, so that two names never meet); `_x` becomes `u_x`, for
    an underscore at the start marks the file's own names; a letter outside ASCII becomes its code point (`λ`: `u3bb`),
    and the dot in a name of the compiler's own an underscore (`y.lag1`: `y_lag1`).
    """
    plain = "".join(c if c.isascii() else f"u{ord(c):x}" for c in name).replace(".", "_")
    if plain.startswith("_"):
        plain = "u" + plain
    return plain + "_" if plain.rstrip("_") in RESERVED or plain in RESERVED else plain


def emitted_name(a: Argument) -> str:
    """The emitted name of an argument: `S_0` of a state S, whatever has become of the name S."""
    return f"{safe_name(a.of)}_0" if a.kind == "state" else safe_name(a.of)


def dim_name(dim: str) -> str:
    """The emitted name of the size of a dim: of `K'` that of `K`; the batch and time, `B` and `T`, are called so."""
    plain = unprimed(dim)
    return plain if plain in (BATCH, TIME) else safe_name(plain)


def class_name(spec: str, taken: Collection[str] = ()) -> str:
    """The Module's name: a short word is an acronym (`gla`: `GLA`), others are capitalised (`DeltaRule`).

    taken: names of the spec; a Module that would be called so ends in `Module` (`AModule` for `a` beside a param `A`).
    """
    words = [word for word in spec.split("_") if word]
    short = len(words) == 1 and len(words[0]) <= 4
    made = safe_name(words[0].upper() if short else "".join(word[:1].upper() + word[1:] for word in words))
    return f"{made}Module" if made in taken else made


def module_name(program: Program) -> str:
    """The name of a program's Module, which no dim, argument or state of it has."""
    taken = {safe_name(name) for part in (program.dims, program.inputs, program.params, program.states) for name in part}
    return class_name(program.name, taken)


def past_locals(spec: str, written: Callable[[str], str]) -> str:
    """The text of functions that call a spec's own, by another name where a local of theirs has it. written: the text, from
    the name that it calls."""
    text = written(spec)
    nodes = list(ast.walk(ast.parse(text)))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if spec not in stored | {n.arg for n in nodes if isinstance(n, ast.arg)}:
        return text
    other = f"{next(n.name for n in nodes if isinstance(n, ast.FunctionDef))}_calls"
    return f"{other} = {spec}\n\n\n{written(other)}"
