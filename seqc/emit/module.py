"""The Module of an emitted file. In: a signature. Out: the text of a class that owns the parameters and calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqc.emit import convolution
from seqc.emit.call import caller, head_text
from seqc.emit.elastic import elastic_methods
from seqc.emit.generate import generate_method
from seqc.emit.pruning import methods_text
from seqc.emit.shrinking import shrinking_methods
from seqc.emit.signature import Dim, Param, Signature
from seqc.emit.sizes import choices_lines
from seqc.emit.text import docstring, group, lay
from seqc.ir.dims import unprimed

_AXIS = ("", "axis: which of the inputs' axes has the steps, of every call that does not say it; see the function.")
_ELEMENTS = ("normal", "uniform", "trunc_normal")  # fill element by element; the others, matrices of the last two dims


def module_text(sig: Signature) -> str:
    """The Module."""
    owned = _owned(sig)
    masks = [p for p in sig.params if p.mask and not p.hidden]
    sizes = module_sizes(sig)
    keys = [f"{d.name}: int" if d.default is None else f"{d.name}: int = {d.default}" for d in sizes]
    keys += ["axis: int | None = None", "device: torch.device | str | None = None", "dtype: torch.dtype | None = None"]
    lines = [
        f"class {sig.class_name}(torch.nn.Module):",
        docstring([f"{sig.spec} as a layer: it owns {', '.join(p.name for p in owned) or 'no parameter'}.", *_AXIS], 4),
        "",
        lay("def __init__(", ["self", "*", *keys], ") -> None:", 4),
        "        super().__init__()",
        "        self.axis = axis",
        lay("self.dims = _whole_sizes(", ["0", *(f"{d.name}={d.name}" for d in sizes)], ")", 8),
        *choices_lines(sig.class_name, sizes, 8),
    ]
    lines += _held(owned, masks)
    lines += _resets(owned, sizes) if owned else []
    own = {p.name: f"self.{p.name}" for p in (*owned, *masks) if not p.per_batch}
    lines += [*_call(sig, own, "forward", sig.spec), *_call(sig, own, "step", f"{sig.spec}_step")]
    lines += generate_method(sig, own)
    lines += convolution.method(sig, own)
    more = methods_text(sig)
    lines += ["", *more, *shrinking_methods(sig)] if more else []
    lines += elastic_methods(sig)
    lines += [
        "",
        "    if TYPE_CHECKING:",
        "        __call__ = forward",
        "",
        "    def extra_repr(self) -> str:",
        '        return ", ".join(f"{name}={size}" for name, size in self.dims.items())',
    ]
    return "\n".join(lines)


def module_sizes(sig: Signature) -> list[Dim]:
    """The dims whose sizes a Module is made with."""
    used = {unprimed(d) for dims in (*(p.dims for p in _owned(sig)), *(s.dims for s in sig.states)) for d in dims}
    return [d for d in sig.dims if d.name in used]


def _owned(sig: Signature) -> list[Param]:
    return [p for p in sig.params if not p.per_batch and not p.mask]


def _held(owned: list[Param], masks: list[Param]) -> list[str]:
    """Lines of the constructor that make params, buffers and masks."""
    lines = list[str]()
    for p in owned:
        shape = group([unprimed(d) for d in p.dims])
        if p.role == "buffer":
            made = [f'"{p.name}"', f"torch.empty({shape}, device=device, dtype=dtype)"]
            lines.append(lay("self.register_buffer(", made, ")", 8))
            continue
        lines.append(
            lay(f"self.{p.name} = torch.nn.Parameter(torch.empty(", [shape, "device=device", "dtype=dtype"], "))", 8)
        )
    for p in masks:
        made = [group([unprimed(d) for d in p.dims]), "device=device", "dtype=torch.bool"]
        lines.append(lay(f'self.register_buffer("{p.name}", torch.ones(', made, "))", 8))
    return lines


def _resets(owned: list[Param], sizes: Sequence[Dim]) -> list[str]:
    """The end of the constructor, and the method that gives params their initial values."""
    inits = [line for p in owned for line in _init(p)]
    read = [d.name for d in sizes if any(_mentions(line, d.name) for line in inits)]
    return [
        "        self.reset_parameters()",
        "",
        "    @torch.no_grad()",
        "    def reset_parameters(self) -> None:",
        '        """Give every parameter its initial value."""',
        *(f'        {d} = self.dims["{d}"]' for d in read),
        *_device(owned, inits),
        *inits,
    ]


def _call(sig: Signature, own: Mapping[str, str], method: str, function: str) -> list[str]:
    """A method that calls a function of the file. own: what the Module gives, by name."""
    given = [own.get(a.name, a.name) for a in caller(sig) if not a.default]
    time = method == "forward"
    keys = [a.name for a in sig.table if a.default] + (["seed"] if sig.keys else [])
    keys += ["cu_seqlens", "reverse"] if time else ["inplace", "into"]
    states = [f"{x}={own.get(x, x)}" for x in keys]
    states += ["axis=axis", "states_every=states_every"] if time else []
    words = "The recurrence over a sequence" if time else "One step"
    head = head_text(sig, method, time, params=False, indent=4)
    lines = ["", head, f'        """{words}; see `{function}`."""']
    lines += ["        axis = self.axis if axis is None else axis"] if time else []
    if told := telling(sig):
        first = next((s for s in sig.initial if s not in own), "")  # states that a call gave were made by these sizes
        lines += [f"        if {first} is None:"] if first and not time else []
        lines.append(lay("_as_made(", ["self", *(f"{x}={x}" for x in told)], ")", 12 if first and not time else 8))
    return [*lines, lay(f"return {function}(", [*given, *states], ")", 8)]


def telling(sig: Signature) -> list[str]:
    """Inputs that together have every dim of the Module that an input has: the first one with each."""
    given = {x.name: x.dims for x in sig.required}
    found = {d.name: next((x for x, dims in given.items() if d.name in dims), "") for d in module_sizes(sig)}
    return [x for x in given if x in found.values()]


def _mentions(line: str, name: str) -> bool:
    words = "".join(c if c.isalnum() or c == "_" else " " for c in line).split()
    return name in words


def _device(owned: list[Param], inits: list[str]) -> list[str]:
    """The line that binds `device`, where an initial value is made on it."""
    if not any(_mentions(line, "device") for line in inits):
        return []
    return [f"        device = self.{owned[0].name}.device"]


def _init(p: Param) -> list[str]:
    """The lines that fill a parameter or a buffer in place."""
    if p.fill:
        name, *args = p.fill
        then = [f"        drawn = self.{p.name}.double()", f"        self.{p.name}.copy_({p.then})"] if p.then else []
        if len(p.dims) > 2 and name not in _ELEMENTS:
            line = lay(f"torch.nn.init.{name}_(", ["one", *args], ")", 12)
            return [f"        for one in self.{p.name}.flatten(0, -3):", line, *then]
        return [lay(f"torch.nn.init.{name}_(", [f"self.{p.name}", *args], ")", 8), *then]
    if p.init is not None:
        return [f"        self.{p.name}.copy_(torch.as_tensor({p.init}))"]
    if len(p.dims) < 2 or p.role == "buffer":
        return [f"        self.{p.name}.zero_()"]
    return [f"        self.{p.name}.normal_(std={unprimed(p.dims[-1])}**-0.5)"]
