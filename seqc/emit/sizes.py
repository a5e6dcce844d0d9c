"""How an emitted file learns the sizes of its dims. In: a signature. Out: the axes of every tensor, and the text of the
functions that read and check them; or the reasons why a signature cannot be emitted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from seqc.diagnostics import Diagnostic, Unsupported
from seqc.emit.signature import Dim, Signature
from seqc.emit.text import either, group, lay, unpack
from seqc.ir.dims import unprimed


def layouts(sig: Signature, time: bool = True) -> dict[str, tuple[str, ...]]:
    """Every tensor argument with its axes, the sequence or (without time) one step of it."""
    return {a.name: tuple(map(unprimed, a.axes if time else a.at_step())) for a in sig.table}


def dims(sig: Signature, time: bool = True) -> tuple[str, ...]:
    """Every dim that a generated function binds: B, T, then the signature's."""
    return ("B", *(("T",) if time else ()), *(d.name for d in sig.dims))


def tellers(sig: Signature) -> tuple[str, ...]:
    """The arguments that a call must give, from which sizes are read."""
    return tuple(a.name for a in sig.table if not a.default)


def main_input(sig: Signature) -> str:
    """The argument whose dtype and device speak for all: the first input of real numbers that is no gate, else a param."""
    whole = {a.name for a in sig.table if a.whole}
    plain = [x.name for x in sig.required if x.name not in whole]
    first = [x.name for x in sig.required if x.name in plain and not x.gate]
    return [*first, *plain, *(p.name for p in sig.params if not p.default), sig.inputs[0].name][0]


def clock(sig: Signature) -> str:
    """The input whose first two axes are the batch and the steps: the one that speaks for all, if that is an input."""
    main = main_input(sig)
    return main if main in {x.name for x in sig.inputs} else sig.inputs[0].name


def extent(sig: Signature, dim: str, main: str = "") -> str:
    """The size of a dim, from the first of `tensors` that has it, with a time axis or without. main: what the tensor that tells
    dtype and device is called, where it has a name."""
    for at, (name, axes) in enumerate(layouts(sig).items()):
        if dim in axes:
            x = main if main and name == main_input(sig) else f"tensors[{at}]"
            return f"{x}.shape[{axes.index(dim) - len(axes)}]"
    return str(next(d.default for d in sig.dims if d.name == dim))


def check(sig: Signature) -> None:
    """Raise Unsupported where no file can be written for this signature, with every reason."""
    found = []

    def refuse(message: str, help: str) -> None:
        found.append(Diagnostic("E-emit", message, help=help, kind="unsupported"))

    if not sig.inputs:
        refuse(f"`{sig.spec}` has no input", "give it one: the inputs tell the length of the sequence")
    if sig.inputs and any(a.name == main_input(sig) and a.whole for a in sig.table):
        help = "declare an input or a param of real numbers: its dtype is that of the results"
        refuse(f"`{sig.spec}` has no argument of real numbers", help)
    taken: list[str] = [sig.spec, f"{sig.spec}_step", sig.class_name, *sig.arguments, *dims(sig)]
    taken += ["seed"] if sig.keys else []
    taken += [f"{s.name}_T" for s in sig.states if f"{s.name}_T" in sig.arguments]
    for name, count in Counter(taken + _defined(sig)).items():
        if count > 1:
            refuse(f"two things of the emitted file would be called `{name}`", "rename one of them in the spec")
    for name, count in Counter(sig.results).items():
        if count > 1:
            refuse(f"two results would be called `{name}`", "rename the output or the state")
    if any(kept.dtype != "carry" for kernels in (sig.torch, sig.cpu) if kernels for kept in kernels.saved):
        refuse("the torch and cpu forms compute in the carried dtype and save no other", "save it as `carry`")
    if found:
        raise Unsupported(found)


def _defined(sig: Signature) -> list[str]:
    """Names that the kernels' texts define at top level, each text's once; locals of functions may be called alike."""
    own = {sig.spec, f"{sig.spec}_step", sig.class_name, f"{sig.class_name}Result"}
    texts = [kernels.text for kernels in sig.backends.values()]
    return sorted(own & {name for text in texts for name in re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)})


def sizes_text(sig: Signature, time: bool = True) -> str:
    """The function that reads the sizes of all dims from the inputs and params, and refuses shapes that disagree."""
    axes = {name: dims for name, dims in layouts(sig, time).items() if name in tellers(sig)}
    names = list(axes)
    samples = {p.name for p in sig.params if p.per_batch}
    ranks: list[str] = []
    known: set[str] = set()
    wrong: dict[str, list[str]] = {}  # shape -> what has it
    late: dict[str, list[str]] = {}  # likewise, of what has an entry per sequence, whose number a pack tells by other means
    for name, dims_ in axes.items():
        new = {*dims_} - known
        if len(new) < len(dims_):  # an axis whose size is already told
            (late if time and name in samples else wrong).setdefault(group(dims_), []).append(f"{name}.shape")
        ranks += [f"{name}.dim() != {len(dims_)}"] * bool(new)
        known |= new
    reads = shape_reads(axes)
    reads += [f"{d.name} = {d.default}" for d in sig.dims if d.name not in known]
    given = "cu_seqlens" if time else "None"
    refusal = lay("raise _shape_error(", [str(time), given, *names], ")", 8)
    title = "_sizes" if time else "_step_sizes"
    text = [
        lay(f"def {title}(", [*names, *(["cu_seqlens"] if time else [])], "):"),
        f'    """Sizes of the dims {", ".join(dims(sig, time))}; ValueError where shapes disagree."""',
        either(ranks, 4),
        refusal,
        *(f"    {line}" for line in reads),
    ]
    if wrong:
        text += [_unlike(wrong), refusal]
    if time:
        text += ["    if cu_seqlens is not None:", f"        B = _sequences(cu_seqlens, {clock(sig)})"]
    if late:
        text += [_unlike(late), refusal]
    text += choices_lines(sig.spec, sig.dims, 4)
    return "\n".join([*text, f"    return {', '.join(dims(sig, time))}"])


def _unlike(shapes: Mapping[str, Sequence[str]]) -> str:
    """`if` something has not the shape that it is listed under."""
    alone, alike = "{} != {}", "not {} == {}"
    return either([(alike if found[1:] else alone).format(" == ".join(found), shape) for shape, found in shapes.items()], 4)


def choices_lines(who: str, dims: Iterable[Dim], indent: int) -> list[str]:
    """The lines that refuse sizes which are not among those of their dim, where a dim has a set of them."""
    pad, lines = " " * indent, list[str]()
    for dim in dims:
        if dim.choices:
            allowed = ", ".join(map(str, dim.choices))
            lines += [
                f"{pad}if {dim.name} not in {group(list(map(str, dim.choices)))}:",
                f'{pad}    raise ValueError(f"{who}: dim {dim.name} is {{{dim.name}}}; it may be {allowed}")',
            ]
    return lines


def shape_reads(axes: Mapping[str, Sequence[str]]) -> list[str]:
    """`B, T, K = q.shape`, and so on until every size is known. axes: the names of the sizes of each tensor's axes."""
    lines, known = list[str](), set[str]()
    for name, sizes in axes.items():
        new = [d for d in dict.fromkeys(sizes) if d not in known]
        whole = new and new == list(sizes)
        lines += [f"{unpack(new)} = {name}.shape"] if whole else [f"{d} = {name}.shape[{sizes.index(d)}]" for d in new]
        known.update(new)
    return lines


def layout_text(sig: Signature) -> str:
    """The table of axes, and the function that says which shape is wrong and why."""
    table = [f'    "{name}": "{" ".join(axes)}",' for name, axes in layouts(sig).items()]
    named = list(tellers(sig)) == [a.name for a in sig.table][: len(tellers(sig))]
    more = [] if named else [f'_TELLERS = "{" ".join(tellers(sig))}".split()  # the arguments that tell sizes']
    error = _SHAPE_ERROR.format(spec=sig.spec, tellers="_AXES" if named else "_TELLERS").strip()
    return "\n".join(["_AXES = {", *table, "}", *more, "", "", error])


_SHAPE_ERROR = '''
def _shape_error(time, cu_seqlens, *tellers, **more):
    """The first tensor whose shape disagrees with those before it, as an error that names dims and sizes.

    tellers: the arguments that tell sizes, in their order.
    """
    sizes = {{}}
    for name, x in [*zip({tellers}, tellers), *more.items()]:
        axes = [axis for axis in _AXES[name].split() if time or axis != "T"]
        shape = list(x.shape)
        if cu_seqlens is not None and "T" not in axes:
            sizes["B"] = (len(cu_seqlens) - 1, "cu_seqlens")
        if len(shape) != len(axes):
            return ValueError(f"{spec}: {{name}} has shape {{shape}}; its axes are [{{', '.join(axes)}}]")
        for axis, size in zip(axes, shape):
            told, by = sizes.setdefault(axis, (size, name))
            if told != size:
                want = ", ".join(axes)
                why = f"{{axis}} is {{size}} here and {{told}} in {{by}}"
                return ValueError(f"{spec}: {{name}} has shape {{shape}} for [{{want}}]; {{why}}")
    return ValueError(f"{spec}: shapes disagree: {{_AXES}}")
'''
