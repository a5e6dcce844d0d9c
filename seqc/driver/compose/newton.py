"""Kernels of a nonlinear recurrence by Newton's method, made of those of its step form.

In: a stage of the walk "newton", and the plain torch kernels of the recurrence inside. Out: `Kernels`. Forward guesses the
states of all steps, and corrects them by linear scans until they no longer move; the recurrence itself runs where they do
not settle, with a warning. Backward is exact at what was found, whichever of both found it: one linear scan gives the
cotangent of each state, and the step at all places at once the rest. What is saved is what the step form saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqc.analysis.newton import MOST, Newton, before, newton_of
from seqc.driver.compose.around import Around, behind, extent_of, handed_on, together
from seqc.driver.compose.in_pieces import in_pieces
from seqc.driver.pipeline import lower
from seqc.emit import Kernels, safe_name
from seqc.emit.text import lay, returned
from seqc.ir.arguments import argument_table
from seqc.ir.block import Block
from seqc.ir.plan import Stage
from seqc.ir.program import Program
from seqc.passes.blocks.choose import EAGER
from seqc.passes.simplify.simplify import simplify

ITERATIONS = 40


class NewtonWalk(Around):
    """The functions of a stage that runs all steps at once."""

    called = "sequential"

    def __init__(self, stage: Stage, kernels: Kernels, suffix: str) -> None:
        super().__init__(stage, kernels, suffix)
        parts = newton_of(stage.program)
        assert isinstance(parts, Newton) and suffix == "torch"
        self.parts = parts
        self.states = list(self.program.states)
        self.kept = {x.name: x for x in kernels.saved}
        self.counts = [sum(a.kind == kind for a in self.moved) for kind in ("input", "param")]
        self.turned = ".flip(1)" if self.program.direction == "backward" else ""

    def kernels(self) -> Kernels:
        """All functions of the part, and what they save."""
        return replace(super().kernels(), infer=True)

    def _functions(self) -> list[str]:
        from seqc.backends.torch_eager import apart, lone

        named = {"sequential": self._inner_text()}
        docs = {
            "_newton_step": "A step at every place: results, and the states after it, from those before it.",
            "_newton_slopes": "The states after each step, and how they come from those before it.",
            "_newton_ahead": "What the steps read of products that see no state.",
        }
        parts = self.parts
        named["each"] = apart(lower(parts.each, "step"), "_newton_step", docs["_newton_step"])
        named["slopes"] = lone(_plain(parts.slopes), "_newton_slopes", docs["_newton_slopes"])
        if parts.ahead:
            named["ahead"] = lone(_plain(parts.ahead), "_newton_ahead", docs["_newton_ahead"])
        self.scans = {}
        for name, one in (("moves", parts.moves), ("back", parts.back)):
            self.scans[name], named[name] = _scan(one, name)
        counts = {
            "iterations": ITERATIONS, "most": MOST, **_SETTLED[parts.exact],
            "outputs": len(self.outputs), "states": len(self.states),
            "timed": self.counts[0], "params": self.counts[1], **self._calls(),
        }  # fmt: skip
        named["newton"] = _TEXT.format(**counts)
        whole = together(list(named.values()), list(named))
        return [whole, self._forward("infer"), self._forward("forward"), self._backward(), self._step()]

    def _step(self) -> str:
        return handed_on(self.program, self.arguments, "_sequential_step_torch")

    def _calls(self) -> dict[str, str]:
        """The calls of the parts, from lists."""
        parts = self.parts
        inputs = {x: f"inputs[{i}]" for i, x in enumerate(a.of for a in self.table if a.kind == "input")}
        params = {x: f"params[{i}]" for i, x in enumerate(a.of for a in self.table if a.kind == "param")}
        held = {before(x): f"before[{i}]" for i, x in enumerate(self.states)}
        early = {x: f"early[{i}]" for i, x in enumerate(parts.ahead.outputs if parts.ahead else ())}
        links = {x: f"found[{len(self.states) + i}]" for i, x in enumerate(parts.links)}
        errors = {f"{x}.error": f"errors[{i}]" for i, x in enumerate(self.states)}
        starts = {f"{x}.move": f"starts[{i}]" for i, x in enumerate(self.states)}

        def call(name: str, part: Program, more: Sequence[str] = (), **given: str) -> str:
            table = {**inputs, **params, **held, **early, **links, **errors, **starts}
            taken = [given.get(a.kind, "{}").format(table[a.of]) for a in argument_table(part)]
            return lay(f"{name}(", [*taken, *more], ")", 8).strip()

        ahead = call("_newton_ahead", parts.ahead) if parts.ahead else "()"
        return {
            "ahead": ahead, "slopes": call("_newton_slopes", parts.slopes), "each": call("_newton_step", parts.each),
            "moves": call(self.scans["moves"], parts.moves, state="torch.zeros_like({})"),
            "back": call(self.scans["back"], parts.back),
            "each_backward": call("_newton_step_backward", parts.each, ("*d_outputs", "*behind", "needs=alone")),
        }  # fmt: skip

    # ---- functions ----

    def _rows(self) -> str:
        """How many rows the dense places of a step's Jacobian have."""
        sums = []
        for dims in self.parts.mixed.values():
            if dims:
                sums.append(" * ".join(extent_of(d, self.table, self.program) for d in dims))
        return " + ".join(sums) or "0"

    def _lists(self) -> list[str]:
        return [f"[{', '.join(x)}]" for x in ([f"{x}{self.turned}" for x in self.inputs], self.params, self.starts)]

    def _forward(self, name: str) -> str:
        words = {"infer": "Results", "forward": "Results, and what backward needs"}
        lines = self._head(name, f"{words[name]}, by Newton's method where that settles.")
        results = len(self.outputs) + len(self.states)
        step = f"_sequential_{name if name == 'forward' or self.run.infer else 'forward'}_torch"
        lines.append(lay("_found = _newton(", [self._rows(), *self._lists()], ")", 4))
        lines.append("    if _found is None:")
        end = ")" if name == "forward" or self.run.infer else f")[:{results}]"
        lines.append(lay(f"return {step}(", self.arguments, end, 8))
        lines.append("    _states, _results = _found")
        given = [f"_results[{i}]{self.turned}" for i in range(len(self.outputs))]
        given += [f"_states[{i}][:, -1].clone()" for i in range(len(self.states))]
        for i, x in enumerate(self.states if name == "forward" else ()):
            if (kept := self.kept.get(f"{safe_name(x)}_all")) is not None:
                given.append(f"_states[{i}]" if kept.shape[0] == "B" else f"_states[{i}].transpose(0, 1).contiguous()")
        return "\n".join([*lines, returned(given, 4)])

    def _backward(self) -> str:
        ends = [f"d_{x}" for x in self.outputs], [f"d_{x}" for x in self.ends]
        lines = self._head_of_backward("Gradients: one linear scan back, and a step at every place.", list(self.kept))
        kept = []
        for x in self.states:
            one = self.kept.get(f"{safe_name(x)}_all")
            kept.append("None" if one is None else one.name if one.shape[0] == "B" else f"{one.name}.transpose(0, 1)")
        lists = (kept, [f"{x}{self.turned}" for x in ends[0]], ends[1])
        given = [self._rows(), *self._lists(), *(f"[{', '.join(x)}]" for x in lists), "needs"]
        lines.append(lay("_found = _newton_backward(", given, ")", 4))
        lines.append("    if _found is None:")
        step = [*self.arguments, *self.kept, *ends[0], *ends[1], "needs=needs"]
        lines.append(lay("return _sequential_backward_torch(", step, ")", 8))
        if self.turned:
            timed = self.counts[0]
            lines.append(f"    return (*(x if x is None else x.flip(1) for x in _found[:{timed}]), *_found[{timed}:])")
        else:
            lines.append("    return _found")
        return "\n".join(lines)


def _plain(program: Program) -> Block:
    """The block of a program without states, of which no gradient is asked."""
    return Block(program, "step", 1, simplify(program.graph), {}, names=program.definitions)


def _scan(program: Program, name: str) -> tuple[str, str]:
    """(the name of the function, text): a linear recurrence, by the form that plain torch has of it."""
    from seqc.backends.torch_eager import emit, lone

    block = lower(program, machine=EAGER)
    cut = in_pieces(program, block, emit, f"_{name}")
    if cut is None:
        return f"_newton_{name}", lone(block, f"_newton_{name}", "A linear scan over all steps.")
    return f"_newton_{name}_infer_torch", behind(cut[1], "torch", f"newton_{name}")


_SETTLED = {
    True: {"settled": "eps**0.75", "about": "An iteration's error is about the square of its moves, which end below eps^(3/4)"},
    False: {"settled": "8 * eps", "about": "The slopes leave out what `stopgrad` holds, so that moves are to end below 8 eps"},
}
_TEXT = '''
NEWTON = {iterations}  # iterations after which a call goes step by step; 0: at once


def _newton(rows, inputs, params, starts):
    """States [B, T + 1, dims] before each step and after the last, and what steps give; None where they do not settle.

    x[t] <- x[t] + move[t], move[t] = J[t] move[t - 1] + (step(x[t - 1]) - x[t]), J the Jacobian of a step at x[t - 1].
    It begins with the first state everywhere; where what is left grows it begins again, and then holds the states
    between the smallest and the largest that steps give.
    {about}
    of the largest state; or, where rounding holds them above that, below sqrt(eps) and no longer shrinking. What is left
    of the last states is looked at once more. rows: of the dense places of a step's Jacobian.
    """
    steps = inputs[0].shape[1]
    if steps < 2 or not all(x.numel() for x in starts) or NEWTON < 1 or not _newton_fits(rows):
        return None
    states = [x[:, None].expand(-1, steps + 1, *x.shape[1:]).clone() for x in starts]
    before = [x[:, :-1] for x in states]
    early = {ahead}
    eps, best, size, held = torch.finfo(starts[0].dtype).eps, math.inf, math.inf, False
    for _ in range(NEWTON):
        found = {slopes}
        errors = [y - x[:, 1:] for x, y in zip(states, found)]
        left = _newton_share(errors, found)
        if not held and not left <= max(2 * best, eps**0.75):
            for x, start in zip(states, starts):
                x[:] = start[:, None]
            held = True
            continue
        if not left < math.inf:
            break
        best = min(best, left)
        moves = {moves}
        if held:
            moves = [_newton_held(x, y, move) for x, y, move in zip(states, found, moves)]
        for x, move in zip(states, moves):
            x[:, 1:] += move
        last, size = size, _newton_share(moves, states)
        if not size < math.inf or size <= {settled} or last <= size <= eps**0.5:
            break
    found = {each}
    left = _newton_share([y - x[:, 1:] for x, y in zip(states, found[{outputs}:])], states)
    if size <= eps**0.5 and left <= eps**0.75:
        return states, found[:{outputs}]
    warnings.warn("Newton's iterations did not settle: this call ran step by step", RuntimeWarning, stacklevel=2)
    return None


def _newton_backward(rows, inputs, params, starts, kept, d_outputs, d_ends, needs):
    """Gradients of inputs, parameters and initial states; None where they are to be found step by step.

    behind[t] = J[t + 1]^T behind[t + 1] + own[t]: own is what the next step's results hand to the states before it.
    kept: the states of `_newton`, or None of those that no derivative reads.
    """
    steps = inputs[0].shape[1]
    if steps < 2 or not all(x.numel() for x in starts) or NEWTON < 1 or rows > {most}:
        return None
    before = [x[:, None].expand(-1, steps, *x.shape[1:]) if y is None else y[:, :-1] for x, y in zip(starts, kept)]
    before = [x.contiguous() for x in before]
    early = {ahead}
    behind = [torch.zeros_like(x) for x in before]
    alone = (False,) * {timed} + (True,) * {states} + (False,) * {params}
    own = {each_backward}[{timed} : {timed} + {states}]
    found = [x.flip(1) for x in {slopes}]
    errors, starts = [x.flip(1) for x in own], d_ends
    scan = {back}
    behind = [torch.cat([x[:, :-1].flip(1), end[:, None]], 1) for x, end in zip(scan, d_ends)]
    if not all(x.isfinite().all() for x in scan):
        return None
    alone = (*needs[:{timed}], *(False,) * {states}, *needs[{timed} : {timed} + {params}])
    found = {each_backward}
    return (*found[:{timed}], *found[{timed} + {states} :], *scan[{states}:])


def _newton_share(moves, states):
    """The largest of the moves, as a share of the largest state."""
    tiny = torch.finfo(states[0].dtype).tiny
    return torch.stack([m.abs().amax() / x.abs().amax().clamp(min=tiny) for m, x in zip(moves, states)]).amax().item()


def _newton_held(x, y, move):
    """The moves of states x [B, T + 1, dims] that stay between the first state and what steps give, y [B, T, dims]."""
    low, high = torch.minimum(x[:, :1], y.amin(1, keepdim=True)), torch.maximum(x[:, :1], y.amax(1, keepdim=True))
    return (x[:, 1:] + move).nan_to_num().clamp(low, high) - x[:, 1:]


def _newton_fits(rows):
    """Whether a scan over matrices of so many rows is worth its work."""
    if rows > {most}:
        warnings.warn(f"a step's Jacobian has {{rows}} rows: this call ran step by step", RuntimeWarning, stacklevel=3)
    return rows <= {most}
'''
