"""graph (outputs, cotangents) -> graph of the cotangents of leaves: the vector-Jacobian product, as nodes.

Needs: nothing. Gives: for each leaf asked for, the sum over all uses of (cotangent of the user) times (local derivative),
rules from the operator table. It works on any graph, a step, a scan block or a chunk alike: time inside a block is one
more named dim. An operator without a rule is refused; it never contributes zero silently. Where an argument was
broadcast, its cotangent is summed over the dims that it lacks; and so is the cotangent of a root that is stored to an array
with more dims (an output made of params alone has neither batch nor rows), before any other contribution is added to it.
The result is linear in the cotangents, which is why a backward kernel may split any dim that the forward never mixes.

A branch that `where` (or max, or min) does not choose has derivative 0, also where its own derivative is infinite: a
selection is no factor, it is carried along the branch (`Cotangent.chosen`) and applied behind the local derivatives:

    where(c, sqrt(x), x):   d/dx = where(c, d / (2 sqrt(x)), d),   and not   where(c, d, 0) / (2 sqrt(x)) + ..
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from seqc.analysis.choices import any_of, steep_nodes
from seqc.diagnostics import Unsupported
from seqc.ir.block import free_dims
from seqc.ir.graph import BATCH, COL, ROW, Dims, Node, combined, const, depends, leaves, node, renamed, topological, total
from seqc.ir.graph import along as moves
from seqc.ir.ops import TABLE
from seqc.ir.ops.elementwise import where

Chosen = tuple[Node, ...]  # conditions that all hold where a cotangent counts; elsewhere it is zero, whatever stands there
ALONG = ("sum", "amax", "expand", "rename")  # operators on dims whose rules a selection along other dims may follow
ZERO = const(0.0)


def vjp(outputs: Mapping[str, Node], cotangents: Mapping[str, Node], wrt: Iterable[Node]) -> dict[Node, Node]:
    """Cotangent of every node in `wrt` (leaves, or inner nodes), given those of some `outputs`.

    A cotangent may lack dims of its node: it is then constant along them. A leaf that no output depends on gets the
    constant 0. Raises Unsupported for an operator that has no derivative rule.
    """
    wanted = list(wrt)
    roots = [outputs[name] for name in cotangents]
    active = depends(roots, wanted)
    choices = _Choices(roots)
    found: dict[Node, Cotangent] = {}
    for name, d in cotangents.items():
        found.setdefault(outputs[name], Cotangent(outputs[name])).add(d, ())
    for n in reversed(topological(roots)):
        if n not in active or n not in found:
            continue
        row = TABLE[n.op]
        if row.vjp is None:
            raise Unsupported(f"operator '{n.op}' has no derivative rule, so no gradient can be derived through it")
        for d, chosen in found[n].joined():
            for arg, rule in zip(n.args, row.vjp, strict=True):
                if rule is not None and arg in active:
                    found.setdefault(arg, Cotangent(arg)).add(*choices.through(n, arg, rule, d, chosen))
    return {n: found[n].whole() if n in found else ZERO for n in wanted}


def selected(d: Node, chosen: Chosen) -> Node:
    """d where all of `chosen` hold, else zero."""
    return where(_both(chosen), d, 0.0) if chosen and d is not ZERO else d


class Cotangent:
    """The cotangent of a node, in parts that count under different choices. A part may be wide: it has dims that the node
    lacks, as its choices do, and is summed over them where it has met all slopes that may be infinite."""

    def __init__(self, of: Node) -> None:
        self.of = of
        self.parts: dict[Dims, dict[Chosen, Node]] = {}

    def add(self, d: Node, chosen: Chosen, wide: Dims = ()) -> None:
        """One contribution more. wide: the dims that it keeps."""
        if d.op == "const" and d.attr("value") == 0.0:
            return
        d, chosen = narrowed(d, chosen, (*self.of.dims, *wide))  # before it is added: a sum would repeat the others along a dim
        parts = self.parts.setdefault(wide, {})  # that d alone has
        parts[chosen] = parts[chosen] + d if chosen in parts else d

    def joined(self) -> list[tuple[Node, Chosen]]:
        """(d, chosen) of all parts that have the same dims: their sum, and what all of it is chosen by."""
        return [_joined(parts) for parts in self.parts.values()]

    def whole(self) -> Node:
        """The sum of all parts, where they are chosen."""
        every = [selected(*narrowed(d, chosen, self.of.dims)) for d, chosen in self.joined()]
        return combined("add", every) if every else ZERO


def narrowed(d: Node, chosen: Chosen, dims: Dims) -> tuple[Node, Chosen]:
    """The cotangent summed over the dims that are not among `dims`, and the choices that are left."""
    wide = tuple(c for c in chosen if not set(c.dims) <= set(dims))
    d = selected(d, wide)
    return total(d, [x for x in d.dims if x not in dims]), tuple(c for c in chosen if c not in wide)


def _joined(parts: Mapping[Chosen, Node]) -> tuple[Node, Chosen]:
    if len(parts) < 2:
        return next(((d, chosen) for chosen, d in parts.items()), (ZERO, ()))
    every = [chosen for chosen in parts if chosen]
    common = tuple(c for c in every[0] if all(c in other for other in every)) if len(every) == len(parts) else ()
    rest = {tuple(c for c in chosen if c not in common): d for chosen, d in parts.items()}
    if len(rest) == 2 and (pair := _opposite(*rest)) is not None:
        return where(pair, *rest.values()), common
    out = combined("add", (selected(d, chosen) for chosen, d in rest.items()))
    either = () if () in rest else (combined("or", map(_both, rest)),)
    return out, common + either


def _both(chosen: Chosen) -> Node:
    return combined("and", chosen)


def _opposite(a: Chosen, b: Chosen) -> Node | None:
    """The condition of a, where b is that it does not hold; or None."""
    if len(a) == len(b) == 1 and (a[0] is _not(b[0]) or b[0] is _not(a[0])):
        return a[0]
    return None


def _not(c: Node) -> Node:
    return c.args[0] if c.op == "not" else node("not", c)


class _Choices:
    """How selections go through derivative rules. A condition on rows alone (of a block, of a sequence) is applied at once:
    what it hides lies in the same arrays as what it shows."""

    def __init__(self, roots: Iterable[Node]) -> None:
        self.roots = list(roots)
        self.by_data: dict[Node, bool] = {}
        for n in topological(self.roots):
            self._depends(n)

    @cached_property
    def steep(self) -> dict[Node, bool]:
        """Which values may be infinite, or have an infinite slope."""
        return steep_nodes(self.roots)

    @cached_property
    def apart(self) -> set[str]:
        """The dims whose indices may be a program's own each."""
        return {*free_dims({str(i): root for i, root in enumerate(self.roots)}), BATCH, ROW, COL}

    def _depends(self, n: Node) -> bool:
        """Whether n depends on more than positions and the ends of sequences."""
        if n not in self.by_data:
            if n.op == "leaf":
                self.by_data[n] = n.text("kind") != "mask"
            else:
                self.by_data[n] = any(self._depends(a) for a in n.args)
        return self.by_data[n]

    def _taken_off(self, d: Node) -> tuple[Node, Chosen]:
        """A selected cotangent as (it without the selection, the conditions)."""
        chosen: Chosen = ()
        while d.op == "where" and ZERO in d.args[1:] and self._depends(d.args[0]):
            c, a, b = d.args
            d, c = (a, c) if b is ZERO else (b, _not(c))
            chosen = (*chosen, c)
        return d, chosen

    def through(self, n: Node, arg: Node, rule: object, d: Node, chosen: Chosen) -> tuple[Node, Chosen, Dims]:
        """The contribution of n to the cotangent of one argument, the choices under which it counts, and the dims beside those
        of the argument that it keeps."""
        row = TABLE[n.op]
        dims = {x for c in chosen for x in c.dims}
        wide = [x for x in dict.fromkeys((*d.dims, *dims)) if x not in n.dims]
        if wide and not row.elementwise:  # a sum over what is wide already has that dim twice
            wide = [x for x in wide if x not in arg.dims] if n.op in ALONG else []
            d, chosen = narrowed(d, chosen, (*n.dims, *wide))
            dims = {x for c in chosen for x in c.dims}
        if not row.elementwise and (n.op not in ALONG or (n.op == "expand" and dims & set(n.names("over")))):
            d, chosen = selected(d, chosen), self._rows(arg, chosen, moves(n) or tuple(x for x in n.dims if x != BATCH))
        part, more = self._taken_off(rule(n, d))  # type: ignore[operator]
        if n.op == "rename":
            chosen = tuple(renamed(c, n.text("new"), n.text("old")) for c in chosen)
        chosen = tuple(dict.fromkeys((*chosen, *more)))
        if not row.elementwise:
            return part, chosen, tuple(wide)
        # an elementwise argument was broadcast along the dims that it lacks: sum over them, whether or not the cotangent
        # varies along them
        lost = [x for x in (*n.dims, *wide) if x not in arg.dims]
        along = tuple(c for c in chosen if set(c.dims) & set(lost))
        if not along:
            return total(part, lost), chosen, ()
        kept = tuple(x for x in lost if any(x in c.dims for c in along))
        if self.steep[arg] and self.apart & {*kept} and _is_no_outer(n, arg, d):
            return total(part, [x for x in lost if x not in kept]), chosen, kept
        part = self._factors_selected(n, arg, d, part, along)
        return total(part, lost), (*(c for c in chosen if c not in along), *self._rows(arg, along, tuple(lost))), ()

    def _rows(self, arg: Node, chosen: Chosen, lost: tuple[str, ...]) -> Chosen:
        """What is left of selections that were applied before dims were mixed or summed: where none of a row is chosen, what
        is zero meets no infinite slope below `arg`. Of sequences, steps and dims that nothing mixes no rows are made, for each
        may be a program's own; and what says where a block or a sequence ends selects what it stands before alone."""
        chosen = tuple(c for c in chosen if not any(x.text("kind") == "mask" for x in leaves([c])))
        if not chosen or not self.steep[arg]:
            return ()
        every = _both(chosen)
        over = tuple(x for x in every.dims if x in lost or x not in arg.dims)
        return () if self.apart & {*over} else (any_of(every, over),)

    def _factors_selected(self, n: Node, arg: Node, d: Node, part: Node, chosen: Chosen) -> Node:
        """`part`, selected before it is summed: an outer product stays one, its factors selected."""
        if _is_no_outer(n, arg, d):
            return selected(part, chosen)
        other = n.args[1] if n.args[0] is arg else n.args[0]
        mine = tuple(x for c in chosen for x in ((c,) if set(c.dims) <= set(other.dims) else self._rows(other, (c,), ())))
        return selected(d, chosen) * selected(other, mine)


def _is_no_outer(n: Node, arg: Node, d: Node) -> bool:
    """Whether what reaches an argument is no outer product of the cotangent and the other factor."""
    if n.op != "mul" or n.args[0] is n.args[1]:
        return True
    other = n.args[1] if n.args[0] is arg else n.args[0]
    return set(other.dims) <= set(d.dims) or set(d.dims) <= set(other.dims)
