"""The Python side of the native kernels: allocate, call, add up.

In: a `NativeSource`. Out: the text of `_forward_cpu`, `_infer_cpu`, `_backward_cpu` and `_step_cpu` with the signatures that
`seqc.emit` asks for, and what they save. Every array is new and contiguous; contributions of several programs to one
gradient are added by torch, in the order of the programs' indices, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby

from seqc.backends.native_cpu.arrays import PANELS, SEGMENTS, Array
from seqc.backends.native_cpu.backward import input_gradients
from seqc.backends.native_cpu.direct import DIRECT, entry_text
from seqc.backends.native_cpu.lanes import lanes_back
from seqc.backends.native_cpu.launch_texts import ADDED, CALL, KEPT, KERNEL, READY, ROWS
from seqc.backends.native_cpu.plan import Plan, Product
from seqc.backends.native_cpu.source import NativeSource
from seqc.backends.native_cpu.sparse import kept_sides
from seqc.backends.native_cpu.step import shared_states
from seqc.emit.names import dim_name, module_name, safe_name
from seqc.emit.packs import shifted_text
from seqc.emit.product import PRODUCT
from seqc.emit.signature import Saved
from seqc.emit.sizes import shape_reads
from seqc.emit.text import docstring, lay, returned
from seqc.ir.arguments import argument_table
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH


def saved(source: NativeSource) -> tuple[Saved, ...]:
    """What forward saves."""
    kept = [a for a in source.forward if a.saved]
    plan = source.plan
    return tuple(Saved(safe_name(a.name), tuple(_shape(plan, a)), packed=tuple(_shape(plan, a, True))) for a in kept)


def launch_text(source: NativeSource, alone: bool, direct: bool) -> tuple[str, list[str]]:
    """The functions of the emitted file that are the recurrence's own; and those that are not, without the loader and the C++
    text. alone, direct: see `emit`."""
    around = f"_NATIVE_RUNTIME + _NATIVE_KERNELS{'' if source.plan.program.no_step else ' + _NATIVE_ENTRY'}"
    entry = '    if kernels in ("all", "step"):\n        _native_entry(library, panels, dtype, *sizes)\n'
    rows = ["SEQC_ROWS"] if source.plan.roles.blocked else []
    run = KERNEL.replace("ENTRY", entry if direct else "").replace("AROUND", around)
    run = run.replace("EVERY", '("all", dtype, 8, *sizes[1:])' if rows else '("all", dtype, *sizes)')
    functions = "step" if source.steps else "forward backward" if source.plan.program.no_step else "forward backward step"
    names = f'_NATIVE_FUNCTIONS = "{functions}".split()\n'
    names += f'_NATIVE_SIZES = "{" ".join([*rows, *(_macro(d) for d in source.dims)])}".split()'
    whole = () if source.steps else (_forward(source, True), _forward(source, False), _backward(source))
    parts = [_ready(source), *whole, _step(source), names, *([_entry(source)] if direct else []), run, READY[alone]]
    common = [CALL, *([ROWS] if rows else []), *_helpers(source), *([DIRECT] if direct else [])]
    return "\n\n\n".join(part.strip("\n") for part in parts), [part.strip("\n") for part in common]


def _helpers(source: NativeSource) -> list[str]:
    """The functions that backward calls."""
    plan = source.plan
    found = [ADDED] if any(a.written and a.lead for a in source.backward) else []
    found += [PRODUCT] if plan.products else []
    found += [KEPT] if any(kept_sides(plan, x) for x in plan.products) else []
    found += [shifted_text("_native_shifted")] if any(offset for _, _, offset in input_gradients(plan).values()) else []
    return [] if source.steps else found


def _entry(source: NativeSource) -> str:
    """The function that makes the entry for single steps of one library."""
    plan = source.plan
    shapes = [[_extent(plan, a) for a in axes] for axes in _axes(plan, time=False).values()]
    shapes += [["B", *map(dim_name, d.dims)] for d in plan.program.output_decls.values()]
    shared = [[f"{'panels' if d == PANELS else dim_name(d)} > 1" for d in dims] for dims in shared_states(plan).values()]
    dims = [*(["_rows"] if plan.roles.blocked else []), *(dim_name(d) for d in source.dims)]
    doubts = [" or ".join(x) or "False" for x in shared]
    return entry_text(module_name(plan.program), dims, shapes, doubts, len(plan.program.states))


def _extent(plan: Plan, axis: str) -> str:
    special = {BATCH: "B", "T": "T", PANELS: "panels", SEGMENTS: f"(T + {plan.every - 1}) // {plan.every}"}
    return special.get(axis) or dim_name(axis)


def _shape(plan: Plan, array: Array, packed: bool = False) -> list[str]:
    """Extents as Python expressions; of a pack, whose rows and whose segments are one each: B counts the sequences."""
    shape = [_extent(plan, axis) for axis in array.axes]
    for i, pair in enumerate(zip(array.axes, array.axes[1:], strict=False)):
        if packed and pair in ((BATCH, "T"), (BATCH, SEGMENTS)):
            shape[i : i + 2] = ["1", "T" if pair[1] == "T" else f"T // {plan.every} + B"]
    return shape


def _arguments(plan: Plan) -> list[str]:
    return [safe_name(a.name) for a in argument_table(plan.program)]


def _axes(plan: Plan, time: bool = True) -> dict[str, tuple[str, ...]]:
    return {safe_name(a.name): a.axes if time else a.at_step() for a in argument_table(plan.program)}


def _sizes(source: NativeSource, made: Iterable[Array] | None, kernels: str = "forward") -> list[str]:
    """Lines that read B and the dims; for sequences also T, and load the kernels. made: the arrays that are allocated."""
    plan = source.plan
    sizes = {name: [_extent(plan, a) for a in axes] for name, axes in _axes(plan, time=made is not None).items()}
    lines, known = shape_reads(sizes), {size for own in sizes.values() for size in own}
    lines += [f"{dim_name(d)} = {plan.program.dims[d].default}" for d in source.dims if dim_name(d) not in known]
    if made is None:
        return lines
    lines += ["_rows = _native_rows(B)"] if plan.roles.blocked else []
    return [*lines, *_calls(source, made), f"library, {_panels(source)} = {_kernel(source, kernels, '_rows')}"]


def _calls(source: NativeSource, made: Iterable[Array]) -> list[str]:
    """Lines about a pack and a direction."""
    plan = source.plan
    segments = any(SEGMENTS in a.axes and a.written for a in made)
    lines = [f"segments = B, {_extent(plan, SEGMENTS)}"] if segments else []
    lines += ["if cu_seqlens is not None:  # B sequences in one row of T steps", "    B = cu_seqlens.shape[0] - 1"]
    lines += [f"    segments = 1, T // {plan.every} + B"] if segments else []
    lines.append("    cu_seqlens = cu_seqlens.to(torch.int64).contiguous()")
    return [*lines, f"way = {'-1 if reverse else 1' if plan.program.direction == 'forward' else '1 if reverse else -1'}"]


def _call(source: NativeSource, name: str, save: int, arrays: list[str]) -> str:
    """The statement that runs a kernel over sequences."""
    return lay("_native_run(", [f"library.seqc_{name}", "B", "T", "way", "cu_seqlens", str(save), *arrays], ")", 4)


CALLS = ["*", "cu_seqlens=None", "reverse=False"]  # the keywords of functions over sequences


def _ready(source: NativeSource) -> str:
    """The function that says whether native code can run on some tensors, of a sequence or of one step."""
    plan = source.plan
    arguments = _arguments(plan)
    sizes = [f"_native_rows({next(n for n, a in _axes(plan).items() if BATCH in a)}.shape[0])"] if plan.roles.blocked else []
    for dim in source.dims:
        axes = next(((n, a) for n, a in _axes(plan).items() if dim in (unprimed(x) for x in a)), None)
        if axes is None:
            sizes.append(str(plan.program.dims[dim].default))
            continue
        place = [unprimed(x) for x in axes[1]].index(dim) - len(axes[1])
        sizes.append(f"{axes[0]}.shape[{place}]")
    return "\n".join([
        lay("def _ready_cpu(", [*arguments, "_kernels"], "):"),
        docstring(["Whether these kernels can run on these arguments: built now, or built ahead for their sizes."], 4),
        lay("double = torch.float64 in [", [f"{x}.dtype" for x in arguments], "]", 4),
        lay("return _native_ready(", ["_kernels", "torch.float64 if double else torch.float32", *sizes], ")", 4),
    ])


def _kernel(source: NativeSource, kernels: str, rows: str) -> str:
    """The call that finds the library of some kernels. rows: what tells those that the batch needs."""
    sizes = [*([rows] if source.plan.roles.blocked else []), *map(safe_name, source.dims)]
    known = [f'"{kernels}"', f"{_main(source.plan)}.dtype", *sizes]
    return f"_native_kernel({', '.join(known)})"


def _panels(source: NativeSource) -> str:
    return "panels" if any(PANELS in a.axes for a in source.backward) else "_"


def _macro(dim: str) -> str:
    from seqc.backends.native_cpu.places import ident

    return f"SEQC_DIM_{ident(dim)}"


def _main(plan: Plan) -> str:
    """The argument whose type is that of the kernels and of all results: the first of real numbers."""
    table = argument_table(plan.program)
    return safe_name(next((a.name for a in table if not a.whole), table[0].name))


def _new(plan: Plan, array: Array, name: str, zero: bool = False) -> str:
    """The line that allocates an array; of a sequence's, one that may be large."""
    shape = _shape(plan, array)
    for i, pair in enumerate(zip(array.axes, array.axes[1:], strict=False)):
        if pair in ((BATCH, "T"), (BATCH, SEGMENTS)):
            shape[i : i + 2] = [f"*{_arguments(plan)[0]}.shape[:2]" if pair[1] == "T" else "*segments"]
    if zero or not {"T", SEGMENTS} & set(array.axes):
        return f"{name} = {_main(plan)}.new_{'zeros' if zero else 'empty'}({', '.join(shape)})"
    return f"{name} = _native_new({', '.join(['library', _main(plan), *shape])})"


def _forward(source: NativeSource, save: bool) -> str:
    """`_forward_cpu`, or where nothing is saved `_infer_cpu`."""
    plan = source.plan
    written = [a for a in source.forward if a.written]
    results = [a for a in written if save or not a.saved]
    name, doc = ("forward", "Results, and what backward needs.") if save else ("infer", "Results only.")
    lines = [lay(f"def _{name}_cpu(", [*_arguments(plan), *CALLS], "):"), docstring([doc], 4)]
    lines += [f"    {line}" for line in _sizes(source, results)]
    names = {a.name: f"out_{safe_name(a.name)}" for a in results}
    lines += [f"    {_new(plan, a, names[a.name])}" for a in results]
    arrays = [*_arguments(plan), *(names.get(a.name, "None") for a in written)]
    lines.append(_call(source, "forward", int(save), arrays))
    return "\n".join([*lines, returned([*names.values()], 4)])


def _step(source: NativeSource) -> str:
    plan = source.plan
    lines = [lay("def _step_cpu(", _arguments(plan), "):"), docstring(["Results of one step."], 4)]
    if plan.program.no_step:
        return "\n".join([*lines, f'    raise NotImplementedError("{plan.program.no_step}")'])
    lines += [f"    {line}" for line in _sizes(source, None)]
    lines.append(f"    library, _ = {_kernel(source, 'step', '_native_rows(B)')}")
    results = {a.name: f"out_{safe_name(a.name)}" for a in source.step if a.written}
    lines += [f"    {_new(plan, a, results[a.name])}" for a in source.step if a.written]
    step = ["library.seqc_step", "B", "1", "1", "None", "0", *_arguments(plan), *results.values()]
    lines.append(lay("_native_run(", step, ")", 4))
    return "\n".join([*lines, returned(list(results.values()), 4)])


def _backward(source: NativeSource) -> str:
    plan, p = source.plan, source.plan.program
    results = [*p.output_decls, *(f"{s}_T" for s in p.states)]
    kept = [safe_name(a.name) for a in source.forward if a.saved]
    cotangents = [f"d_{safe_name(r)}" for r in results]
    arguments = [*_arguments(plan), *kept, *cotangents]
    moved = [a for a in argument_table(p) if a.gradient]
    place = {a.of: i for i, a in enumerate(moved)}
    lines = [lay("def _backward_cpu(", [*arguments, *CALLS, f"needs=(True,) * {len(moved)}"], "):"),
             docstring(["Gradients of inputs, params, initial states; products of params that are not asked for are left out."]
                       if plan.products else ["Gradients of inputs, params, initial states."], 4)]
    lines += [f"    {line}" for line in _sizes(source, source.backward, "backward")]
    written = {a.name: f"grad_{safe_name(a.name.removeprefix('d_'))}" for a in source.backward if a.written}
    lanes = lanes_back(plan)
    joined = lanes.joined if lanes else ()
    lines += ["    _joined = cu_seqlens is None and T >= library.seqc_joined()"] * bool(joined)
    for a in source.backward:
        if a.name in joined:
            lines.append(f"    {written[a.name]} = None if _joined else {_main(plan)}.new_zeros({_main(plan)}.shape)")
        elif a.written:  # a block of rows writes one contribution to a parameter: there are fewer blocks than rows
            lines.append(f"    {_new(plan, a, written[a.name], plan.roles.blocked and BATCH in a.axes[: a.lead])}")
    given = {f"d_{r}": f"d_{safe_name(r)}" for r in results}
    places = {a.name: written.get(a.name) or given.get(a.name) or safe_name(a.name) for a in source.backward}
    lines.append(_call(source, "backward", 0, list(places.values())))
    led = [a for a in source.backward if a.written and a.lead]
    lines += [f"    {written[a.name]} = _native_added({written[a.name]}, {a.lead})" for a in led]
    lines += [f"    {line}" for line in _offsets(plan, written, joined)]
    done: set[str] = set()
    for param, terms in groupby(sorted(plan.products, key=lambda x: place[x.param]), key=lambda x: x.param):
        made = [line for x in terms for line in _product(plan, x, places, done)]
        lines += [f"    grad_{safe_name(param)} = None", f"    if needs[{place[param]}]:"]
        lines += [f"        {line}" for line in made]
    answers = []
    for name in (a.name for a in moved):
        key = f"d_{name}"
        answers.append(written.get(key) or (f"grad_{safe_name(name)}" if name in done
                                            else f"torch.zeros_like({safe_name(name)})"))
    return "\n".join([*lines, returned(answers, 4)])


def _offsets(plan: Plan, written: dict[str, str], joined: Collection[str]) -> Iterable[str]:
    present = {array for array, _, offset in input_gradients(plan).values() if not offset}
    for array, name, offset in input_gradients(plan).values():
        if offset:
            base = f"grad_{safe_name(name)}"
            if f"d_{name}" not in present:
                present.add(f"d_{name}")
                written[f"d_{name}"] = base
                yield f"{base} = torch.zeros_like({safe_name(name)})"
            when = "if not _joined: " if array in joined else ""
            yield f"{when}_native_shifted({base}, {written[array]}, {offset} * way, cu_seqlens)"


def _product(plan: Plan, x: Product, places: dict[str, str], done: set[str]) -> Iterable[str]:
    letters: dict[str, str] = {}

    def word(dims: Iterable[str]) -> str:
        return "".join(letters.setdefault(d, "acdefghijklmnopqrsuvwxyz"[len(letters)]) for d in dims)

    target = f"grad_{safe_name(x.param)}"
    decl = plan.program.params[x.param]
    sides = kept_sides(plan, x)
    left, right = sides or (x.left, x.right)
    text = f"bt{word(left.dims)},bt{word(right.dims)}->{word(decl.dims)}"
    made = f'_product("{text}", {places[left.array]}, {places[right.array]})'
    if sides and decl.support:
        mask = safe_name(decl.support.mask)
        made = f'_native_kept(library, "{text}", {places[left.array]}, {places[right.array]}, {mask})'
    if x.param in done:
        yield f"{target} {'+' if x.sign > 0 else '-'}= {made}"
    else:
        done.add(x.param)
        yield f"{target} = {'' if x.sign > 0 else '-'}{made}"
