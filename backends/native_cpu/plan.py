"""A step block -> what its forward and backward kernels compute, keep and exchange; still graphs, no loops yet.

In: a `Block` of form "step". Out: `Plan`.
- States that are no larger than a token's vectors are saved before every step; larger ones every `every` steps, and the
  steps between are run again in the backward kernel. Results of reductions that backward needs (a readout of the old state,
  a product with a recurrent matrix) are saved if they are vectors, so that nothing dear runs twice.
- A parameter's gradient that is an outer product per token (`dR = sum d h'`) is left to one matrix product over batch and
  time after the kernel: the kernel only stores the two factors. Any other one grows in a buffer of its program.
- A sum over a dim of programs is the caller's: backward is linear in the cotangents, so each program computes with its part
  and the caller adds the parts up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seqc.analysis.normal_forms import terms
from seqc.backends.native_cpu.arrays import Array
from seqc.backends.native_cpu.names_apart import names_apart
from seqc.backends.native_cpu.refusal import refused
from seqc.backends.native_cpu.roles import Roles, roles_of
from seqc.backends.native_cpu.schedule import REDUCTIONS
from seqc.ir.block import Block
from seqc.ir.dims import unprimed
from seqc.ir.graph import BATCH, Node, depends, leaf, leaves, node, substitute, topological, transform
from seqc.ir.keys import next_key, slope_key
from seqc.ir.program import Program, TensorDecl
from seqc.ir.views import view
from seqc.passes.lower.along import along
from seqc.passes.lower.regroup import regroup

CHECKPOINT = 32  # steps between saved matrix states: a segment of them fits the second-level cache


@dataclass(frozen=True)
class Factor:
    """One side of an outer product: an array [B, T, dims] and its dims."""

    array: str
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """param's gradient += sign * sum over batch and time of left * right."""

    param: str
    sign: int
    left: Factor
    right: Factor


@dataclass(frozen=True)
class Plan:
    """See the file's docstring. kept: saved reductions by name; lines: node -> the line of the spec that defines it."""

    program: Program
    roles: Roles
    forward: Mapping[str, Node]
    updates: Mapping[str, Node]
    backward: Mapping[str, Node]
    every: int
    kept: Mapping[str, Node]
    saved_states: tuple[str, ...]
    factors: Mapping[str, Node]
    products: tuple[Product, ...]
    names: Mapping[Node, str]
    lines: Mapping[Node, str]

    @property
    def streams(self) -> bool:
        """Whether every state is a vector and no parameter a matrix: memory traffic is what such a kernel waits for."""
        return self.every == 1 and not self.roles.blocked

    @property
    def factor_dims(self) -> dict[str, tuple[str, ...]]:
        """The dims of each stored factor. Its value may have those of programs besides: they contribute to it."""
        sides = [f for x in self.products for f in (x.left, x.right)]
        return {f.array: f.dims for f in sides if f.array in self.factors}

    @property
    def teams(self) -> bool:
        """Whether several threads may share a program of a sequence: cells alone, for a matrix state has columns enough to
        share out."""
        return self.every == 1 and self.roles.blocked

    @property
    def recompute(self) -> bool:
        """Whether backward runs the steps between checkpoints again."""
        return self.every > 1 and bool(self.saved_states)


def plan(block: Block) -> Plan:
    """The plan of a step block. Raises Unsupported for other forms."""
    block = _for_loops(names_apart(block))
    program = block.program
    if block.form != "step":
        raise refused("native-form", f"the native CPU backend loops over steps, and got form '{block.form}'")
    roles = roles_of(program, block.forward, block.backward)
    names = _names(block)
    kept = _kept(block)
    shadow = {n: leaf("value", name, _axes(program, n)) for name, n in kept.items()}
    backward = substitute(block.backward, shadow)
    used = {n.text("name") for n in leaves(backward.values(), "value")}
    updates = substitute({name: block.forward[next_key(name)] for name in program.updates}, shadow)
    wanted = {n.text("name") for n in leaves(backward.values(), "state")}
    if program.wishes.checkpoint is None and all(_is_vector(program, s) for s in program.states.values()):
        every = 1
        states = tuple(s for s in program.states if s in wanted)
    else:
        every = program.wishes.checkpoint or CHECKPOINT
        states = tuple(program.states) if wanted else ()
        used |= {n.text("name") for n in leaves(updates.values(), "value")} if wanted else set()
    backward, factors, products = _products(program, backward, every)
    backward = {key: _without_programs(n, roles) for key, n in backward.items()}
    factors = {key: _without_programs(n, roles) for key, n in factors.items()}
    kept = {name: n for name, n in kept.items() if name in used}
    names |= {shadow[n]: name for name, n in kept.items()}
    lines = _lines(program)
    ahead, image = regroup({**block.forward, **{f"kept {name}": n for name, n in kept.items()}}, roles.local)
    back, more = regroup({**{f"back {k}": n for k, n in backward.items()}, **{f"factor {k}": n for k, n in factors.items()},
                          **{f"update {k}": n for k, n in updates.items()}}, roles.local)
    for old, new in (*image.items(), *more.items()):
        for table in (names, lines):
            if old in table:
                table.setdefault(new, table[old])

    def part(name: str, table: Mapping[str, Node], found: Mapping[str, Node]) -> dict[str, Node]:
        return {key: found[f"{name} {key}"] for key in table}

    return Plan(
        program, roles, {key: ahead[key] for key in block.forward}, part("update", updates, back),
        part("back", backward, back), every, part("kept", kept, ahead), states, part("factor", factors, back),
        tuple(products), names, lines,
    )


def _for_loops(block: Block) -> Block:
    """The block without operators along a dim of the spec for which there is no loop."""
    graph = {**block.forward, **block.backward, **block.program.graph}
    if not any(n.op in ("shift", "cumsum") for n in topological(graph.values())):
        return block
    program = replace(block.program, updates=along(block.program.updates), outputs=along(block.program.outputs))
    return replace(block, program=program, forward=along(block.forward), backward=along(block.backward))


def _lines(program: Program) -> dict[Node, str]:
    """Definitions and the lines of the spec that state them."""
    out = {}
    for n in program.definitions:
        if n in program.spans:
            span = program.spans[n]
            out[n] = span.source.line(span.line).split("#")[0].strip()
    return out


def _names(block: Block) -> dict[Node, str]:
    program = block.program
    names = {n: name for n, name in {**program.definitions, **block.names}.items() if n.op not in ("leaf", "const")}
    for n in leaves([*block.forward.values(), *block.backward.values()]):
        kind, name = n.text("kind"), n.text("name")
        offset = n.number("offset")
        if kind == "state":
            names[n] = f"{name}_old"
        elif kind == "cot":
            names[n] = f"d_{name.replace('.', '_')}"
        else:
            names[n] = name + (f"_{'p' if offset > 0 else 'm'}{abs(offset)}" if offset else "")
    return names


def _axes(program: Program, n: Node) -> tuple[str, ...]:
    """An axis order for a value that is not declared: that of buffers (`Roles.order`), primed dims last."""
    order = [BATCH, *program.dims, *sorted(d for d in n.dims if "'" in d)]
    return tuple(d for d in order if d in n.dims)


def _tokens(program: Program) -> list[TensorDecl]:
    return [*program.inputs.values(), *program.output_decls.values()]


def _is_vector(program: Program, x: TensorDecl) -> bool:
    return any(set(x.dims) <= set(d.dims) for d in _tokens(program))


def _kept(block: Block) -> dict[str, Node]:
    """Reductions of the forward pass that backward reads and that are no larger than a token's vectors."""
    program = block.program
    roots = list(block.backward.values())
    stateful = depends(roots, leaves(roots, "state"))
    backward = depends(roots, leaves(roots, "cot"))
    out: dict[str, Node] = {}
    for n in topological(roots):
        if n.op in REDUCTIONS and n in stateful and n not in backward and BATCH in n.dims and n.dtype == "real":
            dims = {unprimed(d) for d in n.dims} - {BATCH}
            if any(dims <= set(d.dims) for d in _tokens(program)):
                out[_free("kept", len(out), program)] = n
    return out


def _free(word: str, number: int, program: Program) -> str:
    """A name for an array of the kernels' own, which no dim has."""
    name = f"{word}_{number}"
    while any(f"{mark}{name}" in program.dims for mark in ("", "out_", "grad_")):
        name += "_"
    return name


def _products(
    program: Program, backward: dict[str, Node], every: int
) -> tuple[dict[str, Node], dict[str, Node], list[Product]]:
    """(the other gradients, factors to store, products): see the file's docstring."""
    rest = dict(backward)
    factors: dict[str, Node] = {}
    products: list[Product] = []
    stored = {backward[slope_key(i)]: f"d_{i}" for i, d in program.inputs.items() if slope_key(i) in backward
              and set(backward[slope_key(i)].dims) == set(d.axes)}
    for name, decl in program.params.items():
        root = backward.get(slope_key(name))
        if root is None or decl.per_batch:
            continue
        found = []
        for sign, n in terms(root):
            if n.op == "sum" and BATCH in n.names("over") and n.args[0].op == "mul" and set(n.dims) == set(decl.dims):
                left, right = n.args[0].args
                outer = all(BATCH in x.dims and not set(n.dims) <= set(x.dims) for x in (left, right))
                if outer:
                    found.append((sign, left, right))
                    continue
            found = []
            break
        if not found:
            continue
        del rest[slope_key(name)]
        for sign, left, right in found:
            sides = [_factor(program, x, every, stored, factors) for x in (left, right)]
            products.append(Product(name, sign, sides[0], sides[1]))
    return rest, factors, products


def _factor(program: Program, n: Node, every: int, stored: dict[Node, str], factors: dict[str, Node]) -> Factor:
    if n in stored:
        name = stored[n]
        return Factor(name, program.inputs[name.removeprefix("d_")].dims if name.startswith("d_") else _axes(program, n)[1:])
    v = view(n)
    base = v.base
    if base.op == "leaf" and all(isinstance(i, str) for _, i in v.index) and base.number("offset") == 0:
        index = dict(v.index)
        dims = tuple(str(index[d]) for d in base.names("shape")[1:])
        if base.text("kind") == "input":
            return Factor(base.text("name"), dims)
        if base.text("kind") == "state" and every == 1:
            return Factor(f"{base.text('name')}_kept", dims)
    name = _free("factor", len(factors), program)
    factors[name] = n
    stored[n] = name
    return Factor(name, _axes(program, n)[1:])


def _without_programs(n: Node, roles: Roles) -> Node:
    """n, each sum over a dim of programs replaced by this program's own term."""

    def change(x: Node) -> Node | None:
        if x.op != "sum":
            return None
        over = tuple(d for d in x.names("over") if d not in roles.grid)
        if over == x.names("over"):
            return None
        return node("sum", x.args[0], over=over) if over else x.args[0]

    return transform({"": n}, change)[""]


__all__ = ["Array", "Factor", "Plan", "Product", "plan"]
