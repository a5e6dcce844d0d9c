"""block -> the torch functions of the emitted file: `_forward_torch`, `_backward_torch`, `_step_torch`.

In: a `Block` of any form. Out: `Function`s, and the names of what forward saves: each state that backward reads, as an
array [NT + 1, B, ...] of its values as the blocks begin, and the final one. Signatures and dtypes are those of
`seqc.emit.signature`: every tensor comes and goes in the carried dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from seqc.analysis.phases import BLOCK, split, sum_blocks
from seqc.backends.torch_eager.function import Function
from seqc.backends.torch_eager.gradients_asked_for import only_asked
from seqc.backends.torch_eager.layout import Layout, layout_of, quotes_of, step_layout
from seqc.backends.torch_eager.lines import laid
from seqc.backends.torch_eager.printer import Printer
from seqc.backends.torch_eager.sequence import Sequence, all_blocks
from seqc.backends.torch_eager.values import VIEWS
from seqc.emit.expressions import ATOM, Text, reordered
from seqc.emit.names import emitted_name, safe_name
from seqc.emit.text import unpack
from seqc.ir.arguments import argument_table
from seqc.ir.block import Block, cotangent_leaves, gradient_key
from seqc.ir.graph import BATCH, ROW, Node, leaves, topological
from seqc.ir.keys import next_key, prev_key, slope_key, slope_of
from seqc.ir.program import Program, TensorDecl


def arguments_of(program: Program, time: bool = True) -> dict[str, tuple[str, ...]]:
    """Argument name -> axes, of the inputs, the params and the initial states."""
    return {emitted_name(a): a.axes if time else a.at_step() for a in argument_table(program)}


def function(name: str, doc: str, block: Block, arguments: Mapping[str, tuple[str, ...]], time: bool = True) -> Function:
    """An empty function."""
    fixed = {d.name: d.default for d in block.program.dims.values() if d.default is not None}
    made = Function(name, doc, arguments, block.rows if time else 1, block.form == "step" or not time, fixed)
    made.like = next((emitted_name(a) for a in argument_table(block.program) if not a.whole), made.like)
    made.whole = not name.endswith("_torch")  # a stage beside a recurrence
    made.short = time and block.form == "scan" and not _counts(block)
    return made


def _counts(block: Block) -> bool:
    """Whether a block has halves, or tells rows by their number other than the first two: that depends on how many it has."""
    order = topological([*block.forward.values(), *block.backward.values()])
    compared = [pair for n in order if n.op == "eq" for pair in (n.args, n.args[::-1])]
    return any(n.op == "block_index" or (n.op == "cumsum" and n.number("block")) for n in order) or any(
        a.op == "const" and b.op == "index" and b.text("dim") == ROW and a.attr("value") not in (0.0, 1.0) for a, b in compared)


def shifts(program: Program) -> bool:
    """Whether a program that carries nothing reads inputs at other steps, which must be of the same sequence."""
    return not program.states and any(n.number("offset") for n in leaves(program.graph.values(), "input"))


def saved_states(block: Block) -> tuple[TensorDecl, ...]:
    """The states whose values forward saves, because backward reads them."""
    below = set(topological(block.backward.values()))
    loop = set(split(block.forward, block.program.carried).loop)
    return tuple(
        d for d in block.program.states.values()
        if d.leaf() in below or ((end := block.forward[next_key(d.name)]) in below and end in loop)
    )


class Ends:
    """Turns texts over all blocks into arrays that the caller gets."""

    def __init__(self, fn: Function, printer: Printer, block: Block, layout: Layout) -> None:
        self.fn, self.printer, self.block, self.layout = fn, printer, block, layout
        self._given: set[str] = set()

    def own(self, n: Node, code: str) -> str:
        """code, as a copy where it would be a view of an argument or of another result."""
        if n.op in VIEWS or n in self.printer.fans or code in self._given:
            return f"{code}.clone()"
        self._given.add(code)
        return code

    def sequence(self, n: Node, decl: TensorDecl, offset: int = 0) -> str:
        """A value over all blocks as the code of an array [B, T, dims]."""
        lead = self.layout.order[:2]
        x = self.printer.exactly(self.printer.value(n), (*lead, *self.layout.time, *decl.dims))
        if lead == (BATCH, BLOCK):
            code = x.at(ATOM)
        elif self.block.form == "step":
            code = f"{x.at(ATOM)}.transpose(0, 1)"
        else:
            code = f"{self.fn.helper('_sequence')}({x.code}, {self.fn.size('T')})"
        if offset:
            code = self.fn.shifted(code, -offset, self.block.program.direction == "backward")
        if self.block.program.direction == "backward":
            code = f"{code}.flip(1)"
        return self.own(n, code)

    def plain(self, n: Node, axes: tuple[str, ...]) -> str:
        """A value without block axis, as the code of an array."""
        return self.own(n, self.printer.exactly(self.printer.value(n), axes).code)


def loader(fn: Function, block: Block, layout: Layout) -> Callable[[Node], Text]:
    """Texts of the leaves over all blocks; writes the statements that cut sequences into blocks."""

    def load(n: Node) -> Text:
        kind, name = n.text("kind"), safe_name(n.text("name"))
        if kind == "param":
            return Text(name, n.names("shape"))
        if kind == "mask":
            blocks, rows = fn.size(BLOCK), fn.size(ROW)
            inside = f"torch.arange({blocks} * {rows}, device={fn.like}.device) < {fn.size('T')}"
            return Text(fn.once("valid", f"({inside}).unflatten(0, ({blocks}, {rows}))"), (BLOCK, ROW))
        code = wish = name if kind == "input" else f"d_{name}"
        if block.program.direction == "backward":
            code = f"{code}.flip(1)"
        offset = n.number("offset")
        if offset:
            code = fn.shifted(code, offset, block.program.direction == "backward")
            wish = f"{wish}_{'before' if offset > 0 else 'after'}{abs(offset)}"
        dims = tuple(d for d in n.names("shape") if d not in (BLOCK, BATCH, ROW))
        if layout.at:
            if code == wish:  # an argument as it is
                return Text(code, (BATCH, BLOCK, *dims))
            x = Text(code, (BATCH, BLOCK, *dims))
        elif block.form == "step":
            x = Text(f"{code}.transpose(0, 1)", (BLOCK, BATCH, *dims))
        else:
            x = Text(f"{fn.helper('_blocks')}({code}, {fn.size(ROW)}, repeat={kind == 'input'})", (BLOCK, BATCH, ROW, *dims))
        x = reordered(x, [d for d in layout.order if d in x.axes])
        if block.form == "chunkwise":
            x = Text(f"{x.code}.contiguous()", x.axes)
        if offset:
            return fn.assign(wish, x)
        fn.say(f"{wish} = {x.code}")  # the argument itself is not read again
        return Text(wish, x.axes)

    return load


def forward(
    block: Block, name: str = "_forward_torch", doc: str = "Outputs, final states, and the states as the blocks begin."
) -> Function:
    """`name(inputs, params, NAME_0) -> (outputs, NAME_T, saved)`."""
    program, layout = block.program, layout_of(block)
    saved = [d.leaf() for d in saved_states(block)]
    fn = function(name, doc, block, arguments_of(program))
    fn.packs = name != "_forward_torch" and shifts(program)
    carried = program.carried
    sequence = Sequence(
        fn, layout, block.rows, block.forward, carried,
        starts={d.leaf(): f"{safe_name(d.name)}_0" for d in program.states.values()},
        known={}, load=loader(fn, block, layout), result=lambda key, n: n, names=block.names,
        quotes=quotes_of(program, block.names), reverse=False, kept=saved,
    )
    ends = Ends(fn, sequence.printer, block, layout)
    sequence.printer.values(sequence.results.values())
    results = [ends.sequence(sequence.results[name], d) for name, d in program.output_decls.items()]
    results += [sequence.finals[n].code for n in carried]
    results += [sequence.wholes[n].code for n in saved]
    _give(fn, results)
    return fn


def backward(block: Block, name: str = "_backward_torch") -> Function:
    """`name(inputs, params, NAME_0, saved, d_outputs, d_NAME_T) -> (d_inputs, d_params, d_NAME_0)`."""
    program, layout = block.program, layout_of(block)
    arguments = arguments_of(program)
    wholes = {d.leaf(): f"{safe_name(d.name)}_all" for d in saved_states(block)}
    for n, whole in wholes.items():
        inner = n.names("shape")
        arguments[whole] = (*inner[: layout.at], "NT+1", *inner[layout.at :])
    arguments |= {f"d_{safe_name(n)}": (BATCH, "T", *d.dims) for n, d in program.output_decls.items()}
    arguments |= {f"d_{safe_name(n)}_T": d.axes for n, d in program.states.items()}
    fn = function(name, "Gradients of every input, parameter and initial state.", block, arguments)
    fn.packs = name != "_backward_torch" and shifts(program)
    cotangents = cotangent_leaves(program, block.form)
    read = set(leaves(block.backward.values(), "cot"))
    params = {slope_key(name) for name in program.params}
    known: dict[Node, tuple[Node, Text]] = {}
    loop = set(split(block.forward, program.carried).loop)
    for n, whole in wholes.items():
        inner = n.names("shape")
        axes = (*inner[: layout.at], BLOCK, *inner[layout.at :])
        known[n] = (all_blocks(n, "in"), Text(f"{whole}{layout.cut(':-1')}", axes))
        end = block.forward[next_key(n.text("name"))]
        if end in loop and set(end.dims) == set(n.dims):
            known.setdefault(end, (all_blocks(n, "out"), Text(f"{whole}{layout.cut('1:')}", axes)))
    carried, starts = {}, {}
    for name in program.states:
        cotangent = cotangents[next_key(name)]
        if cotangent in read or block.backward[prev_key(name)].op != "const":
            carried[cotangent], starts[cotangent] = prev_key(name), f"d_{safe_name(name)}_T"
    names = {n: _gradient_name(key) for key, n in block.backward.items() if n.op != "leaf"} | dict(block.names)
    fn.held = []
    sequence = Sequence(
        fn, layout, block.rows, block.backward, carried, starts, known, loader(fn, block, layout),
        result=lambda key, n: sum_blocks(n) if key in params else n, names=names,
        quotes=quotes_of(program, block.names), reverse=True,
    )
    ends = Ends(fn, sequence.printer, block, layout)
    sequence.printer.values(sequence.results.values())
    results: list[str] = []
    for name, d in program.inputs.items():
        if not d.gradient:
            continue
        parts = [(key, slope_of(key).offset) for key in block.backward if slope_of(key)[::2] == (name, False)]
        codes = [ends.sequence(sequence.results[key], d, offset) for key, offset in parts]
        results.append(_added(fn, f"d_{name}", codes) or f"torch.zeros_like({safe_name(name)})")
    for a in argument_table(program):
        if a.kind != "param" or not a.gradient:
            continue
        name, d = a.of, program.params[a.of]
        found = sequence.results.get(gradient_key(d.leaf()))
        results.append(f"torch.zeros_like({safe_name(name)})" if found is None else ends.plain(found, d.axes))
    finals = {key: sequence.finals[n].code for n, key in carried.items()}
    for name in program.states:
        zero = f"torch.zeros_like({safe_name(name)}_0)"
        results.append(finals.get(prev_key(name), zero))
    _give_asked(fn, results, program)
    return fn


def _give_asked(fn: Function, results: list[str], program: Program) -> None:
    """The statements that are held, and the results, of those that a call asks for."""
    moved = [a for a in argument_table(program) if a.gradient]
    fn.needs, said, fn.held = len(results), fn.held or [], None
    switches = [fn.names.fresh(f"need_{name}") for name in map(emitted_name, moved)]
    trained = [i for i, a in enumerate(moved) if a.kind == "param"]
    lines, codes, named = only_asked(said, results, switches, trained, fn.indent, fn.names.fresh)
    if codes != results:
        fn.lines[:0] = [*laid(f"{unpack(switches)} = needs", fn.indent), *named, *[""] * (lines[:1] != [""])]
    fn.lines += lines
    _give(fn, codes)


def _added(fn: Function, name: str, codes: list[str]) -> str:
    """The sum of the codes; the first is a new array."""
    if sum(map(len, codes)) < 100:
        return " + ".join(codes)
    total = fn.assign(name, Text(codes[0])).code
    for code in codes[1:]:
        fn.say(f"{total} = {total} + {code}")
    return total


def _gradient_name(key: str) -> str:
    return "d_" + slope_of(key).word("_before", "_after")


def step(block: Block, name: str = "_step_torch") -> Function:
    """`_step_torch(inputs, params, NAME_0) -> (outputs, NAME_T)`: one step of the recurrence as the spec states it.

    Where an input is read at other steps, one step alone does not say enough: the function then refuses with the reason.
    """
    program = block.program
    layout = step_layout(program)
    fn = function(name, "One step: outputs and new states.", block, arguments_of(program, time=False), time=False)
    fn.differentiated = True
    if program.no_step:
        fn.say(f'raise NotImplementedError("{program.no_step}")')
        return fn
    texts = {d.leaf(): Text(safe_name(n), d.axes) for n, d in (*program.inputs.items(), *program.params.items())}
    texts |= {d.leaf(): Text(f"{safe_name(n)}_0", d.axes) for n, d in program.states.items()}
    roots = program.graph
    names = {n: name for n, name in program.definitions.items() if n.op not in ("leaf", "const", "size", "index")}
    printer = Printer(fn, roots.values(), texts, names, layout.order, layout.extent, quotes_of(program, {}))
    printer.values(roots.values())
    decls = {**program.output_decls, **{next_key(n): d for n, d in program.states.items()}}
    _give(fn, [printer.exactly(printer.value(n), decls[key].axes).code for key, n in roots.items()])
    return fn


def fixed(
    program: Program, name: str, doc: str, arguments: Mapping[str, tuple[str, ...]], roots: Mapping[str, Node],
    axes: Mapping[str, tuple[str, ...]], cotangents: Iterable[Node] = (),
) -> Function:
    """`name(arguments) -> roots`, of parameters alone. arguments: name -> axes; axes: of roots; cotangents: more of them."""
    layout = step_layout(program)
    sizes = {d.name: d.default for d in program.dims.values() if d.default is not None}
    fn = Function(name, doc, arguments, 1, True, sizes)
    texts = {d.leaf(): Text(safe_name(x), d.axes) for x, d in program.params.items()}
    texts |= {n: Text(f"d_{safe_name(n.text('name'))}", n.names("shape")) for n in cotangents}
    names = {n: x for n, x in program.definitions.items() if n.op not in ("leaf", "const", "size", "index")}
    printer = Printer(fn, roots.values(), texts, names, layout.order, layout.extent, quotes_of(program, {}))
    printer.values(roots.values())
    *_, last = codes = [printer.exactly(printer.value(n), axes[key]).code for key, n in roots.items()]
    _give(fn, codes) if len(codes) > 1 else fn.say(f"return ({last},)")
    return fn


def _give(fn: Function, codes: list[str]) -> None:
    flat = f"return {', '.join(codes)}"
    if len(flat) <= 112 and len(codes) > 1:
        fn.say(flat)
        return
    fn.say("return (")
    fn.indent += 4
    for code in codes:
        *lines, last = laid(code, fn.indent)
        fn.lines += [*lines, f"{last},"]
    fn.indent -= 4
    fn.say(")")
