"""The functions that a person calls in an emitted file. In: a signature. Out: the text of the result tuple, the
function over a sequence and the function for one step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from seqc.emit.derivatives import on_cpus
from seqc.emit.dtypes import reals
from seqc.emit.edges import uncounted
from seqc.emit.names import past_locals
from seqc.emit.places import cast_lines
from seqc.emit.signature import Signature
from seqc.emit.sizes import clock, dims, layouts, main_input, tellers
from seqc.emit.supports import made_masks, masked
from seqc.emit.text import docstring, either, group, lay, unpack
from seqc.ir.arguments import Argument


def result_text(sig: Signature) -> str:
    """The named tuple that calls return."""
    axes = layouts(sig)
    rows = [f"    {o.name}: Tensor  # [{', '.join(['B', 'T', *o.dims])}]" for o in sig.outputs]
    rows += [f"    {s.name}_T: Tensor  # [{', '.join(axes[f'{s.name}_0'])}]" for s in sig.states]
    rows = [f"{row}, {note}" if (note := sig.notes.get(row.split(":")[0].strip())) else row for row in rows]
    title = docstring(["Outputs, and the states after the last step: the next call's NAME_0, to go on from."], 4)
    return "\n".join([f"class {sig.class_name}Result(NamedTuple):", title, "", *rows])


def head_text(sig: Signature, name: str, time: bool, params: bool = True, indent: int = 0) -> str:
    """The head of a function over a sequence (time) or for a step; a Module's, which owns the params, without them."""
    taken = [a for a in caller(sig) if params or a.batched]  # what is shared by the batch is a Module's own
    given = [f"{a.name}: Tensor" for a in taken if not a.default]
    keys = [f"{a.name}: Tensor | None = None" for a in taken if a.default]
    keys += ["seed: int | Tensor | None = None"] if sig.keys else []
    if time:
        keys += ["cu_seqlens: Tensor | None = None", "reverse: bool = False", "axis: int | None = None"]
        keys += ["states_every: int | None = None"]
    else:
        keys += ["inplace: bool = False", f"into: {sig.class_name}Result | None = None"]
    own = [] if params else ["self"]
    return lay(f"def {name}(", [*own, *given, *(["*", *keys] if keys else [])], f") -> {sig.class_name}Result:", indent)


def caller(sig: Signature) -> list[Argument]:
    """What a caller may give: all but what the function makes itself."""
    hidden = {p.name for p in sig.params if p.hidden}
    return [a for a in sig.table if a.name not in hidden]


def _default(init: str, axes: tuple[str, ...], main: str, dtype: str = "carry", small: bool = False) -> str:
    """The initial state, or the buffer, or the input of this dtype, that a caller did not give. small: of a number it is one
    element, seen in that shape, which is all that a gradient then keeps; kernels get a copy."""
    shape = group(list(axes))
    try:
        value = float(init)
    except ValueError:
        return f"({init}).to(device=device, dtype={dtype})" + (f".expand{shape}" if axes else "")
    made, seen = ("()", f".expand{shape}") if small and axes else (shape, "")
    if value == 0.0:
        return f"{main}.new_zeros({made}, dtype={dtype}){seen}"
    number = repr(value) if value == value and abs(value) != float("inf") else f'float("{value}")'
    return f"{main}.new_full({made}, {number}, dtype={dtype}){seen}"


def _body(sig: Signature, time: bool, ahead: Sequence[str] = ()) -> list[str]:
    """Dtypes, sizes and initial states, then the call of the operator: for the sequence, or for one step. ahead: lines where
    the sizes are known."""
    inputs = reals(sig)
    axes = layouts(sig, time)
    edges = {x.name for x in sig.inputs if x.init is not None}
    rows = f"*{clock(sig)}.shape[:2]" if time else f"{clock(sig)}.shape[0]"  # of a pack B is the number of sequences
    axes |= {x: (rows, *axes[x][1 + time :]) for x in edges}
    made = "_sizes" if time else "_step_sizes"
    used = ", ".join(dims(sig, time))
    given = ["axis", "cu_seqlens", "reverse", *(["seed"] if sig.keys else []), *(a.name for a in caller(sig))]
    pieces = ["states_every", *given[: -len(caller(sig))], *(f"{a.name}={a.name}" for a in caller(sig))]
    lines = [
        *(["    if states_every is not None:", *uncounted(sig, 8), lay("return _in_pieces(", pieces, ")", 8)] if time else []),
        *([] if time else uncounted(sig, 4)),
        *(["    if axis is not None:", lay("return _along(", given, ")", 8)] if time else []),
        *([lay(f"{unpack(inputs)} = _cast(", inputs, ")", 4)] if inputs else []),
        *cast_lines(sig),
        *made_masks(sig),
        lay(f"{used} = {made}(", [*tellers(sig), *(["cu_seqlens"] if time else [])], ")", 4),
        *masked(sig),
        *(ahead if time else ()),
    ]
    lines += _filled(sig, time, axes, edges)
    own = [p.name for p in sig.params if not p.mask]
    if own:
        wrong = either([f"{name}.dtype not in _FLOATS" for name in own], 4)
        lines += [
            lay("if not {", [f"{name}.dtype" for name in own], "} <= _FLOATS:", 4) if "\n" in wrong else wrong,
            lay("raise _dtype_error(", [f"{name}={name}" for name in own], ")", 8),
        ]
    if time:
        call = [*([] if on_cpus(sig) else ["_OPS.run.default"]), *sig.arguments, "cu_seqlens", "reverse"]
        return [*lines, lay(f"return {sig.class_name}Result(*_call{'_run' * on_cpus(sig)}(", call, "))", 4)]
    arguments = ["_OPS.step.default", *sig.arguments]
    called = lay(f"_result = {sig.class_name}Result(*_call(", arguments, "))", 4)
    if sig.writes:
        called = "\n".join([
            lay("_rows = _step_in_place(", list(sig.arguments), ") if inplace else None", 4),
            lay(f"_result = {sig.class_name}Result(*(_call(", arguments, ") if _rows is None else _rows))", 4),
        ])  # fmt: skip
    return [
        *(_direct(sig) if sig.cpu and sig.cpu.direct and not (made_masks(sig) or masked(sig)) else []),
        f"    _given = {group(list(sig.initial))}",
        *lines,
        called,
        "    return _written(_result, _given, inplace, into) if inplace or into is not None else _result",
    ]


def _filled(sig: Signature, time: bool, axes: Mapping[str, tuple[str, ...]], edges: Collection[str]) -> list[str]:
    """The lines that make what a caller has left out, and check what was given. edges: inputs that have an initial value."""
    main = main_input(sig)
    lines = []
    inits = {p.name: p.init or "0" for p in sig.params if p.default} | {f"{s.name}_0": s.init for s in sig.states}
    inits |= {x.name: x.init for x in sig.inputs if x.init is not None}
    dtypes = {a.name: f"{main}.dtype" if a.name in edges else "carry" for a in sig.table}
    small = {s.name for s in sig.states} if time and sig.triton is not None else set[str]()  # elsewhere a copy costs more
    defaults = {
        a.name: _default(inits[a.name], axes[a.name], main, dtypes[a.name], a.name.removesuffix("_0") in small)
        for a in sig.table if a.default
    }
    if defaults:
        lines.append(f"    carry = _carry({main})")
    if any("device" in code for code in defaults.values()):
        lines.append(f"    device = {main}.device")
    for run, (low, high) in enumerate(sig.keys):
        width = "".join(f", {d}" for d in axes[f"{low}_0"][1:])
        lines.append(f"    {low}_0, {high}_0 = _keys(seed, {low}_0, {high}_0, {run}, B, {main}.device{width})")
    for name, code in defaults.items():
        known = [*tellers(sig), f"{name}={name}"]
        lines += [
            f"    if {name} is None:",
            f"        {name} = {code}",
            f"    elif {name}.shape != {group(list(axes[name]))}:",
            lay("raise _shape_error(", [str(time), "cu_seqlens" if time else "None", *known], ")", 8),
        ]
        if name in sig.initial or name in edges:
            dtype = dtypes[name]
            lines += [f"    elif {name}.dtype != {dtype}:", f"        {name} = _to_carry(\"{name}\", {name}, {dtype})"]
    return lines


def _direct(sig: Signature) -> list[str]:
    """The way of a step without torch's dispatcher, where a call is of the kind that it takes."""
    states = "".join(f" and {a.name} is not None" for a in sig.table if a.default)
    states += " and seed is None" if sig.keys else ""
    return [
        f"    if not torch.compiler.is_compiling() and forward_ad._current_level < 0{states}:",
        "        for _direct in _NATIVE_STEPS:",
        lay("_result = _direct(", [*sig.arguments, "inplace", "into"], ")", 12),
        "            if _result is not None:",
        "                return _result",
    ]


def _shapes(sig: Signature, time: bool) -> list[str]:
    said = {name: f" ({sig.notes[name]})" if name in sig.notes else "" for name in sig.arguments}
    hidden = [p.name for p in sig.params if p.hidden]
    rows = [f"    {name}: [{', '.join(axes)}]{said[name]}" for name, axes in layouts(sig, time).items() if name not in hidden]
    return ["", "Shapes:", *rows] if rows else []


def function_text(sig: Signature, ahead: Sequence[str] = ()) -> str:
    """The public function: casts, checks, default states, then the operator. ahead: lines where the sizes of dims are known."""
    words = [f"Run {sig.spec} over a sequence.", *_shapes(sig, True), ""]
    words += ["States are float32 (float64 for float64 inputs); one that is not given starts at its default.", ""]
    words += [*_SEED, ""] if sig.keys else []
    own = ", ".join(name for name, axes in layouts(sig).items() if axes[:1] == ("B",) and "T" not in axes)
    words += [
        "cu_seqlens: the call is a pack of B sequences of any lengths, one after the other in one row of T steps; inputs are",
        "    [1, T, ...], and sequence i has the steps from cu_seqlens[i] up to cu_seqlens[i + 1]. int32 or int64 [B + 1] on",
        f"    the inputs' device.{f' One entry per sequence: {own}.' if own else ''}",
        "reverse: every sequence runs from its last step to its first.",
        "axis: which of the axes before the dims has the steps; all others are batch, and states have these, in their order.",
        "states_every: refused, for a run cannot be cut." if sig.no_step else
        f"states_every: the result is a {sig.class_name}States, with the states after every so many steps.",
    ]
    return "\n".join([head_text(sig, sig.spec, True), docstring(words, 4), *_body(sig, True, ahead)])


def along_text(sig: Signature) -> str:
    """What brings any axis of the arrays to the place of the steps."""
    main = clock(sig)
    at, dims = sig.arguments.index(main), len(layouts(sig)[main]) - 2
    hidden = [p.name for p in sig.params if p.hidden]
    table = f"((name, axes) for name, axes in _AXES.items() if name not in {group([repr(x) for x in hidden])})"
    names = {"spec": sig.spec, "name": main, "main": at, "dims": dims, "outputs": len(sig.outputs), "result": sig.class_name}
    names |= {"seed": "seed, " if sig.keys else "", "said": "seed=seed, " if sig.keys else ""}
    names["table"] = table.replace("'", '"') if hidden else "_AXES.items()"
    return past_locals(sig.spec, lambda itself: _ALONG.format(**names, itself=itself).strip())


def step_text(sig: Signature) -> str:
    """The function for one step: the same casts, checks and default states, then the operator."""
    words = [f"Run {sig.spec} for one step: one token of decoding.", *_shapes(sig, False), ""]
    words += [*_SEED, ""] if sig.keys else []
    words += [
        "inplace: the new states are written over the old ones, and returned as these.",
        "into: the result of an earlier step, whose tensors are written and returned. With its own states as initial ones,",
        "    no step allocates anything.",
    ]
    return "\n".join([head_text(sig, f"{sig.spec}_step", False), docstring(words, 4), *_body(sig, False)])


def written_text(sig: Signature) -> str:
    """The function that puts the results of a step into tensors of the caller."""
    return _WRITTEN.format(spec=sig.spec, outputs=len(sig.outputs)).strip()


_WRITTEN = '''
def _written(result, given, inplace, into):
    """The result in tensors of the caller: states in those that were given (inplace), the rest in an earlier result."""
    if any(x.requires_grad for x in result):
        why = "inplace= and into= keep nothing that a gradient needs: call it under torch.no_grad()"
        raise RuntimeError(f"{spec}_step: {{why}}")
    places = list(result if into is None else into)
    if inplace:
        places[{outputs}:] = [y if x is None else x for x, y in zip(given, places[{outputs}:], strict=True)]
    for place, x in zip(places, result, strict=True):
        if place.shape != x.shape or place.dtype != x.dtype:
            said = f"{{list(place.shape)}} of {{place.dtype}}, and the step gives {{list(x.shape)}} of {{x.dtype}}"
            raise ValueError(f"{spec}_step: a tensor to write has shape {{said}}")
    if len(set(map(id, places))) < len(places):
        raise ValueError("{spec}_step: one tensor is to be written twice: give every state its own")
    for place, x in zip(places, result, strict=True):
        if place is not x:
            place.copy_(x)
    return type(result)(*places)
'''


def keys_text(sig: Signature) -> str:
    """The function that makes the keys of noise from a seed; "" where there is no noise."""
    if not sig.keys:
        return ""
    dims = next(s.dims for s in sig.states if s.name == sig.keys[0][0])
    head, rows = (", width", _ACROSS) if dims else ("", "")
    return _KEYS.format(spec=sig.spec, width=head, across=rows).strip()


_SEED = (
    "seed: of the noise, a whole number below 2^63; the sequences of a call draw different numbers. A tensor [B] gives each",
    "    sequence a seed of its own, and then its place in the batch does not count. Without one, torch's generator gives it.",
    "    A run that goes on from the states of another draws on, and takes no seed.",
)

_KEYS = '''
def _keys(seed, low, high, run, count, device{width}):
    """The keys of the noise of so many sequences: two words of 24 bits each, hashed from the seed, the run and the sequence."""
    if low is not None or high is not None:
        if seed is not None or low is None or high is None:
            raise ValueError("{spec}: the keys of the noise are given by a seed, or as two states by an earlier call")
        return low, high
    if seed is None:
        seed = torch.randint(1 << 62, (), device=device)
    seed = seed.to(device=device, dtype=torch.int64) if isinstance(seed, Tensor) else torch.tensor(seed, device=device)
    if seed.dim() and seed.shape != (count,):
        raise ValueError(f"{spec}: seed has shape {{list(seed.shape)}}; it is one number, or one a sequence: [{{count}}]")
    row = torch.arange(count, dtype=torch.float64, device=device) * (seed.dim() == 0)
    first, second = ((seed >> by & 0xFFFFFF).to(torch.float64) for by in (0, 24))
    words = [_draw(first, second, row, float(run), seed >> 48, word) * 2.0**24 for word in (0, 1)]{across}
    return tuple(words)
'''

_ACROSS = '''
    places = torch.arange(width, dtype=torch.float64, device=device)  # of the second axis: each has keys of its own
    words = [_draw(words[0][:, None], words[1][:, None], places, float(run), 0.0, word) * 2.0**24 for word in (0, 1)]'''

_ALONG = '''
def _along(axis, cu_seqlens, reverse, {seed}*tensors):
    """The call whose steps lie along one of the axes before the dims; the others are batch, by views if possible."""
    main = tensors[{main}]
    count = main.dim() - {dims}
    if not -count <= axis < count:
        raise ValueError(f"{spec}: axis is {{axis}}; {name} has {{count}} axes before its dims: {{list(main.shape)}}")
    lead, axis = main.shape[:count], axis % count
    batch = (*lead[:axis], *lead[axis + 1 :])
    given = {{}}
    for x, (name, axes) in zip(tensors, {table}, strict=True):
        own, *dims = axes.split() or [""]
        if x is not None and own == "B" and (cu_seqlens is None or dims[:1] == ["T"]):
            ahead, dims = (lead, dims[1:]) if dims[:1] == ["T"] else (batch, dims)
            if x.dim() != len(ahead) + len(dims) or x.shape[: len(ahead)] != ahead:
                want, why = ", ".join([*map(str, ahead), *dims]), f"axis {{axis}} of {name} has the steps"
                raise ValueError(f"{spec}: {{name}} has shape {{list(x.shape)}} for [{{want}}]; {{why}}")
            x = x.movedim(axis, count - 1) if ahead is lead else x
            x = x.reshape((math.prod(batch), *x.shape[len(batch) :]))
        given[name] = x
    results = {itself}(**given, {said}cu_seqlens=cu_seqlens, reverse=reverse)
    outputs = [o.reshape((*batch, *o.shape[1:])).movedim(count - 1, axis) for o in results[:{outputs}]]
    states = results[{outputs}:]
    if cu_seqlens is None:
        states = [s.reshape((*batch, *s.shape[1:])) for s in states]
    return {result}Result(*outputs, *states)
'''
