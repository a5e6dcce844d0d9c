"""Is a graph well formed? Run after every pass; a failure is a bug of the compiler and names the pass.

In: a graph (or a program, or a block) and the name of the pass that made it. Out: nothing, or SeqcBug. It derives the
dims and the dtype of every node again, checks arity, attributes and argument dtypes, that a name means one leaf, that
the keys are complete and that no root has more dims than what it is stored to. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakSet

from seqc.diagnostics import SeqcBug
from seqc.ir.block import Block, gradient_key
from seqc.ir.graph import BATCH, ROW, Dims, Node, leaves, node, topological
from seqc.ir.keys import next_key
from seqc.ir.ops import TABLE
from seqc.ir.program import INSIDE, Program, TensorDecl
from seqc.ir.windows import lags, window_of

KINDS = ("input", "param", "state", "cot", "mask", "value")
STEP_KINDS = ("input", "param", "state")


_SOUND: WeakSet[Node] = WeakSet()  # nodes do not change: each is looked at once, however many passes hand it on


def verify(outputs: Mapping[str, Node], where: str) -> None:
    """Check every node below `outputs`. Raises SeqcBug naming `where`, the pass that made them."""
    named: dict[tuple[str, str, str, str], Node] = {}
    for n in topological(outputs.values()):
        problem = None if n in _SOUND else _node_problem(n)
        if problem is None:
            _SOUND.add(n)
        if problem is None and n.op == "leaf":
            key = (n.text("kind"), n.text("name"), str(lags(n)) if n.text("kind") == "input" else "", window_of(n))
            other = named.setdefault(key, n)
            if other is not n:
                problem = f"{key[0]} {key[1]} has two shapes or types: {other!r} and {n!r}"
        if problem is not None:
            raise SeqcBug(where, problem)


def _node_problem(n: Node) -> str | None:
    row = TABLE.get(n.op)
    if row is None:
        return f"unknown operator in {n!r}"
    if len(n.args) != row.arity:
        return f"{n!r} has {len(n.args)} arguments, its operator takes {row.arity}"
    if row.elementwise and n.attrs:
        return f"{n!r} has attributes, its operator takes none"
    for i, a in enumerate(n.args):
        wanted = row.takes_at(i)
        if wanted not in (a.dtype, "any"):
            return f"argument {i} of {n!r} is {a.dtype}, not {wanted}: {a!r}"
    if n.op == "leaf" and n.text("kind") not in KINDS:
        return f"unknown kind of leaf: {n!r}"
    if n.op == "leaf" and len(set(n.names("shape"))) != len(n.names("shape")):
        return f"a dim occurs twice in {n!r}"
    try:
        dims = tuple(sorted(set(row.dims(n))))
    except (KeyError, AssertionError) as problem:
        return f"{n!r} cannot be: {problem}"
    if dims != n.dims:
        return f"{n!r} should have dims [{', '.join(dims)}]"
    if row.dtype(n) != n.dtype:
        return f"{n!r} should be {row.dtype(n)}, not {n.dtype}"
    if node(n.op, *n.args, **dict(n.attrs)) is not n:
        return f"{n!r} was made behind the back of the interning table"
    return None


def verify_program(program: Program, where: str) -> None:
    """Check the step graph, the initial values, and that both fit the declarations."""
    verify(program.graph, where)
    _keys(program.outputs, program.output_decls, where, "outputs")
    _keys(program.updates, program.states, where, "states")
    for name, n in (*program.outputs.items(), *program.updates.items()):
        decl = program.output_decls[name] if name in program.outputs else program.states[name]
        _fits(name, n, decl.axes, where)
    for name, decl in program.states.items():
        if decl.init is None:
            raise SeqcBug(where, f"state {name} has no initial value")
        verify({name: decl.init}, where)
        _fits(name, decl.init, decl.axes, where)
        for n in leaves([decl.init]):
            _declared(program, n, ("param",), (), where)
    for n in leaves(program.graph.values()):
        _declared(program, n, STEP_KINDS, (), where)


def verify_block(block: Block, where: str) -> None:
    """Check both graphs of a block against the contract in `seqc.ir.block`."""
    program = block.program
    time = () if block.form == "step" else (ROW,)
    verify(block.forward, where)
    verify(block.backward, where)
    shapes = {name: (BATCH, *time, *d.dims) for name, d in program.output_decls.items()}
    shapes |= {next_key(name): d.axes for name, d in program.states.items()}
    _keys(block.forward, shapes, where, "results")
    for name, n in block.forward.items():
        _fits(name, n, shapes[name], where)
    for n in leaves(block.forward.values()):
        _declared(program, n, (*STEP_KINDS, "mask"), time, where)
    wrt = program.with_gradient(block.forward.values())
    targets = {gradient_key(n): n for n in (*wrt, *(d.leaf() for d in program.states.values()))}
    _keys(block.backward, targets, where, "gradients")
    for key, n in block.backward.items():
        _fits(key, n, targets[key].dims, where)
    for n in leaves(block.backward.values()):
        if n.text("kind") != "cot":
            _declared(program, n, (*STEP_KINDS, "mask"), time, where)
        elif n.names("shape") != shapes.get(n.text("name")):
            raise SeqcBug(where, f"{n!r} is no cotangent of a result")


def _keys(found: Iterable[str], wanted: Iterable[str], where: str, what: str) -> None:
    missing, extra = set(wanted) - set(found), set(found) - set(wanted)
    if missing or extra:
        parts = [f"missing {', '.join(sorted(missing))}"] if missing else []
        parts += [f"unknown {', '.join(sorted(extra))}"] if extra else []
        raise SeqcBug(where, f"{what}: {'; '.join(parts)}")


def _fits(name: str, n: Node, axes: Dims, where: str) -> None:
    extra = [d for d in n.dims if d not in axes]
    if extra:
        raise SeqcBug(where, f"{name} has dims [{', '.join(n.dims)}], which [{', '.join(axes)}] cannot hold")
    if n.dtype != "real":
        raise SeqcBug(where, f"{name} is {n.dtype}, not a real number")


def _declared(program: Program, n: Node, kinds: tuple[str, ...], time: Dims, where: str) -> None:
    kind, name = n.text("kind"), n.text("name")
    if kind not in kinds:
        raise SeqcBug(where, f"{n!r} has no place in this graph")
    if kind == "mask" or (kind, name) == ("input", INSIDE):
        return
    table: Mapping[str, TensorDecl] = {
        "input": program.inputs, "param": program.params, "state": program.states}[kind]
    if name not in table:
        raise SeqcBug(where, f"{kind} {name} is not declared")
    decl = table[name]
    axes = (BATCH, *time, *filter(None, [window_of(n)]), *decl.dims) if kind == "input" else decl.axes
    if n.dtype != decl.leaf_type:
        raise SeqcBug(where, f"{kind} {name} is {n.dtype}, not {decl.leaf_type}")
    if n.names("shape") != axes:
        raise SeqcBug(where, f"{kind} {name} has axes [{', '.join(n.names('shape'))}], not [{', '.join(axes)}]")
