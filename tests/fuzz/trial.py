"""One program on one backend against the judge: values and every gradient, of calls of several kinds.

In: the text of a spec, a backend, a seed. Out: `Problem`s: a disagreement, a crash, a build that fails, or a refusal.
"""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported: its kernels run on this machine's CPU

import numpy as np
import torch

from seqc.check.sampling import sample
from seqc.diagnostics import SpecError, Unsupported
from seqc.driver.compile import Compiled, Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import safe_name
from seqc.ir.arguments import argument_table
from seqc.ir.program import Program
from tests.fuzz.judge import How, judge
from tests.fuzz.long_families import FAR
from tests.fuzz.programs import WIDE
from tests.fuzz.threefry import keys
from tests.fuzz.values import rounding
from tests.triton import interpreter, lockstep

Arrays = dict[str, torch.Tensor]
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
ROUNDINGS = 256  # of one element on one step's way to a result
COUNTS = ("every", "down.", "down_", "noise")  # how the names of states begin that count
NUDGE = 1e-9
"""The relative change, of arguments and of every value and cotangent on the way, by which the judge measures what rounding does
to a result: where a difference cancels most digits, the arguments alone do not tell (stochastic arithmetic, J. Vignes 1993)."""


@dataclass(frozen=True)
class Problem:
    """What went wrong. kind: "values", "gradients", "crash", "invalid" or "refused"; where: the call and the tensors."""

    kind: str
    backend: str
    words: str
    where: str = ""
    size: float = 0.0

    @property
    def signature(self) -> str:
        """What makes two problems the same one, as far as can be told."""
        words = re.sub(r"<?seqc[-_]\w*(\.py>)?", "<emitted>", self.words)
        words = re.sub(r"[0-9]+(\.[0-9e+-]+)?", "#", words)
        return f"{self.backend}: {self.kind}: {words}"[:300]


@dataclass(frozen=True)
class Wish:
    """How a program is compiled."""

    backend: str
    form: str | None = None
    rows: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    team: int = 0  # the order in which programs that share out a head run in Triton's interpreter; 0: one program holds it


@dataclass(frozen=True)
class Call:
    """One call: the extents, the dtype, a pack's bounds, whether it is reversed, whether arguments are extreme, and a seed.

    defaults: whether buffers and states are left out for their initial values (all of them where the seed is 0), and noise
    comes from a seed.
    """

    sizes: Mapping[str, int]
    dtype: str = "float64"
    bounds: tuple[int, ...] | None = None
    reverse: bool = False
    hard: bool = False
    seed: int = 0
    defaults: bool = False

    def words(self) -> str:
        """The call in words."""
        marks = [self.dtype, *(f"{k}={v}" for k, v in self.sizes.items())]
        marks += [f"pack {self.bounds}"] if self.bounds else []
        left = ["defaults"] * self.defaults
        return ", ".join(marks + ["reversed"] * self.reverse + ["extreme"] * self.hard + left + [f"seed {self.seed}"])


def name_of(key: str) -> str:
    """A name of the spec as a call has it."""
    stem, mark = (key[:-2], key[-2:]) if key.endswith(("_0", "_T")) else (key, "")
    return safe_name(stem) + mark


def _cut(x: torch.Tensor, *_: object) -> tuple[int, int]:
    """How short sequences x [B, T, ...] are cut in pieces of time: their number, and the steps before the first."""
    steps = x.shape[1]
    count = (1, 2, 3)[steps % 3] if steps < 8 else (1, 2, 3, 5)[steps % 4]
    return (count, steps % count) if 1 < count <= steps else (1, 0)


def _short_lanes(text: str) -> str:
    """The text, in which native code runs a short sequence in lanes, in stretches of few steps."""
    text = re.sub(r"(constexpr i64 LONG = )[^;]*;", r"\1 2 * W;", text)
    return re.sub(r"(constexpr i64 lane_shortest = .*)i64\(8\) \* W \* W", r"\1i64(W) * W", text)


class Subject:
    """A program that is compiled and loaded for one backend."""

    def __init__(self, text: str, wish: Wish) -> None:
        self.text, self.wish = text, wish
        self.compiled: Compiled = compile_spec(text, Options(wish.backend, dims=wish.dims, form=wish.form, rows=wish.rows))
        self.program: Program = self.compiled.program
        self.part = wish.backend
        self.block = self.compiled.blocks[self.part]
        self.in_lanes = "lanes_forward::" in self.compiled.text
        self.module = load_emitted(_short_lanes(self.compiled.text), self.compiled.signature.spec)
        form = getattr(self.module, {"torch": "_TORCH", "cpu": "_CPU", "triton": "_TRITON"}[wish.backend])
        self.team = wish.team and "_held_triton" in vars(self.module)
        if wish.backend == "triton":
            interpreter.choose()
            if self.team:
                lockstep.in_pieces(vars(self.module))
                lockstep.choose(wish.team)
            vars(self.module)["_form"] = lambda *_: form
            loop = getattr(self.module, "_loop_TRITON", None)
            vars(self.module)["_loop_form"] = lambda *_: loop
        self.in_pieces = hasattr(self.module, "_pieces")
        if self.in_pieces:
            vars(self.module)["_pieces"] = _cut
        self.function = getattr(self.module, self.compiled.signature.spec)
        self.moved = {a.name for a in argument_table(self.program) if a.gradient}

    def arguments(self, call: Call) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """(arrays, cotangents) in float64, rounded to the call's dtype."""
        sizes = {n: d.default for n, d in self.program.dims.items() if d.default is not None} | dict(call.sizes)
        steps = sizes.pop("T")
        rows = None
        if call.bounds is not None:
            sizes["B"], rows = len(call.bounds) - 1, 1
        parts = sample(self.program, sizes, steps, hard=call.hard, seed=call.seed, rows=rows)
        dtype = getattr(torch, call.dtype)
        arrays, cotangents = ({k: cast(torch.as_tensor(x), dtype, torch.float64) for k, x in part.items()} for part in parts)
        if call.dtype == "float32":  # a decay by so little is none in this dtype: no tie of the judge's
            for c in (0.3, 0.4, 0.6):  # a number that is what this dtype has for a constant that masks are compared with
                tie = torch.tensor(c).to(dtype).double()
                arrays = {k: torch.where(x == tie, x + 1e-3, x) if x.is_floating_point() else x for k, x in arrays.items()}
            least = torch.tensor(1e-8).to(dtype).double()
            arrays = {k: torch.where(x.abs() == least, 1e6 * x, x) if x.is_floating_point() else x for k, x in arrays.items()}
        for name in self.program.states:
            if name.startswith(("every.", "down.")):
                period = int(name.removesuffix("_reverse").split(".")[1])
                arrays[f"{name}_0"] = torch.arange(arrays[f"{name}_0"].shape[0], dtype=torch.float64) % period
            if self.program.states[name].whole:
                cotangents[f"{name}_T"] = torch.zeros_like(cotangents[f"{name}_T"])
                if name.startswith("noise.clock") and call.hard:  # the count begins again within the run
                    arrays[f"{name}_0"] = torch.full_like(arrays[f"{name}_0"], (1 << 24) - 2)
                if name.startswith("noise.") and call.defaults:
                    del arrays[f"{name}_0"]
        if call.defaults:
            arrays = {k: x for k, x in arrays.items() if k not in self.program.params or not self.program.params[k].default}
            left = np.random.default_rng(call.seed)
            arrays = {k: x for k, x in arrays.items() if not k.endswith("_0") or (call.seed and left.random() < 0.5)}
        return arrays, cotangents

    def seed_of(self, call: Call) -> torch.Tensor | None:
        """The seed of a call that passes none of the states of noise: one number, or one for each sequence."""
        if not call.defaults or not any(name.startswith("noise.") for name in self.program.states):
            return None
        count = call.sizes["B"] if call.bounds is None else len(call.bounds) - 1
        made = torch.Generator().manual_seed(call.seed)
        return torch.randint(1 << 62, (count,) if call.seed % 2 else (), generator=made)

    def truth(self, call: Call, arrays: Any, cotangents: Any) -> Any:
        """The judge's results and gradients, by the names of a call."""
        axes = {f"{n.replace('.', '_')}_0": d.dims for n, d in self.program.states.items() if ".lag" in n}
        how = How(call.bounds, call.reverse, axes=axes)
        given = {k.replace(".", "_"): x for k, x in arrays.items()}
        if (seed := self.seed_of(call)) is not None:
            count = call.sizes["B"] if call.bounds is None else len(call.bounds) - 1
            for back, word in enumerate(("", "_reverse")):
                words = keys(seed, count, bool(back))
                given |= {f"noise_{n}{word}_0": x for n, x in zip(("low", "high"), words, strict=True)}
        weights = None if cotangents is None else {k.replace(".", "_"): x for k, x in cotangents.items()}
        return judge(self.text, given, call.sizes, weights, how)

    def answer(self, call: Call, arrays: Any, cotangents: Any) -> Any:
        """What the emitted function gives: (results, gradients)."""
        dtype = getattr(torch, call.dtype)
        given = {k: cast(x, dtype).requires_grad_(k in self.moved) for k, x in arrays.items()}
        how = {"reverse": call.reverse, "cu_seqlens": None if call.bounds is None else torch.tensor(call.bounds)}
        how |= {} if (seed := self.seed_of(call)) is None else {"seed": seed}
        with np.errstate(all="ignore"):
            results = self.function(**{name_of(k): x for k, x in given.items()}, **how)
            found, zeros = differentiated({k: getattr(results, name_of(k)) for k in cotangents}, cotangents, given)
        return ({k.replace(".", "_"): x.detach() for k, x in found.items()}, {k.replace(".", "_"): x for k, x in zeros.items()})


def cast(x: torch.Tensor, *dtypes: torch.dtype) -> torch.Tensor:
    """The tensor in a dtype, and then in the next; whole numbers as they are."""
    for dtype in dtypes:
        x = x.to(dtype) if x.is_floating_point() else x.double() if x.dtype == torch.bool else x
    return x


def differentiated(found: Arrays, cotangents: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
    """(results, gradients of all arguments that ask for theirs)."""
    loss = torch.stack([(found[k] * c.to(found[k].dtype)).sum() for k, c in cotangents.items()]).sum()
    asked = {k: x for k, x in given.items() if x.requires_grad}
    slopes = torch.autograd.grad(loss, list(asked.values()), allow_unused=True) if loss.requires_grad else [None] * len(asked)
    return found, {k: torch.zeros_like(x) if s is None else s for (k, x), s in zip(asked.items(), slopes, strict=True)}


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference over the largest element; a NaN on one side alone is infinite, infinities must be the same."""
    if got.shape != want.shape:
        return float("inf")
    if not want.numel():
        return 0.0
    got, same = got.double(), torch.eq(got.double(), want) | (got.isnan() & want.isnan())
    difference = torch.where(same, torch.zeros_like(want), (got - want).abs())
    if bool((difference.isnan() | difference.isinf()).any()):
        return float("inf")
    size = torch.where(want.isfinite(), want, 0.0).abs().max()
    return float(difference.max() / max(float(size), 1.0))


def against_judge(subject: Subject, call: Call) -> Iterator[Problem]:
    """One call with all its gradients."""
    arrays, cotangents = subject.arguments(call)
    got = subject.answer(call, arrays, cotangents)
    yield from compared(subject, call, got, lambda given: subject.truth(call, given, cotangents), arrays)


def compared(
    subject: Subject, call: Call, got: tuple[Arrays, Arrays], truth: Callable[[Arrays], Any], arrays: Arrays, way: str = ""
) -> Iterator[Problem]:
    """Results and gradients against the truth of these arguments. way: words of a call that is no ordinary one."""
    want = truth(arrays)
    least = UNIT[call.dtype] * ROUNDINGS * (call.sizes["T"] + 8)
    moved: list[Any] = []  # the judge's answer for nudged arguments, where it is asked for

    def near(which: int) -> Any:
        if not moved:
            rng = torch.Generator().manual_seed(7)
            nudged = {k: x * (1 + NUDGE * (2 * torch.rand(x.shape, generator=rng, dtype=torch.float64) - 1))
                      if not k.startswith(COUNTS) and x.is_floating_point() else x for k, x in arrays.items()}
            with rounding(NUDGE, 7):
                moved.extend(truth(nudged))
        return moved[which]

    for which, kind in ((0, "values"), (1, "gradients")):
        bad, true = [], want[which]
        for key, x in got[which].items():
            if key not in true:
                if call.sizes["T"] and not (key.startswith(("every", "down_")) and kind == "gradients"):
                    bad.append((float("inf"), key, "unknown to the judge"))
                continue
            off = error(x, true[key])
            allowed = least
            if not off <= least:
                allowed = least * max(error(near(which)[key], true[key]) / NUDGE, 1.0)
            if not off <= allowed:
                bad.append((off, key, f"{off:.3g}, allowed {allowed:.1g}"))
        if bad:
            bad.sort(reverse=True)
            block = subject.block
            words = f"{way or block.form} {block.rows if block.rows > 1 else ''}, {call.dtype}"
            words += ", pack" * (call.bounds is not None) + ", reversed" * call.reverse
            where = f"{call.words()}: " + "; ".join(f"{k}: {w}" for _, k, w in bad)
            yield Problem(kind, subject.part, words, where, bad[0][0])


def parts_and_steps(subject: Subject, call: Call) -> Iterator[Problem]:
    """A run cut in two, and a loop of single steps, against the judge's whole run. Only for specs that have a step."""
    if subject.program.no_step or subject.program.direction == "both" or not call.sizes["T"]:
        return
    arrays, _ = subject.arguments(call)
    want, _ = subject.truth(call, arrays, None)
    dtype = getattr(torch, call.dtype)
    back = (subject.program.direction == "backward") != call.reverse
    given = {name_of(k): cast(x, dtype) for k, x in arrays.items()}
    inputs = [name_of(k) for k in subject.program.inputs]
    states = [name_of(k) for k in subject.program.states]
    timed, axes = {name_of(k) for k in subject.program.output_decls}, 1 + (subject.program.plane is not None)
    steps = call.sizes["T"]
    cut = steps // 2
    pieces = [slice(0, cut), slice(cut, steps)]
    step = getattr(subject.module, subject.compiled.signature.spec + "_step")
    ways = {"parts": [(p, False) for p in pieces], "steps": [(slice(t, t + 1), True) for t in range(steps)]}
    for way, plan in ways.items():
        now, made = dict(given), {}
        with np.errstate(all="ignore"), torch.no_grad():
            for piece, single in plan if not back else plan[::-1]:
                own = {k: (x[:, piece.start] if single else x[:, piece]) if k in inputs else x for k, x in now.items()}
                result = step(**own) if single else subject.function(**own, reverse=call.reverse)
                now |= {f"{s}_0": getattr(result, f"{s}_T") for s in states}
                made[piece.stop] = result
        bad = []
        for key in want:
            owner, lagged, _ = key.partition("_lag")
            if lagged and not any(x.startswith(owner) for x in states):  # nothing reads the past of an input
                continue
            if key.startswith("noise") and key[:-2] not in states:  # no draw reads it
                continue
            if axes == 2 and key.endswith("_T") and key not in timed and key[:-2] not in states:  # no cell reads it
                continue
            if key.endswith("_T") and key not in timed:
                got = now[f"{key[:-2]}_0"] if key[:-2] in states else None
                got = now.get(f"{name_of(key)[:-2]}_0") if got is None else got
            else:
                rows = [getattr(made[k], name_of(key)) for k in sorted(made)]
                got = torch.stack(rows, 1) if way == "steps" else torch.cat(rows, 1)
            off = error(got, want[key])
            if not off <= UNIT[call.dtype] * ROUNDINGS * (steps + 8) * 1e3:
                bad.append(f"{key}: {off:.3g}")
        if bad:
            yield Problem("values", subject.part, f"{way}, {subject.block.form}", f"{call.words()}: {'; '.join(bad)}")


def calls(
    subject: Subject, sizes: Mapping[str, int], rng: np.random.Generator, few: bool, wide: bool
) -> Iterator[tuple[Any, Call]]:
    """(comparison, call) for one program. few: the two that matter most, where a call is slow; wide: of all kinds there are."""
    rows = subject.block.rows if subject.block.rows > 1 else 4
    batch = int(rng.choice([1, 2, 3]))
    steps = int(rng.choice([batch, rows - 1, rows, rows + 1, 2 * rows + 1, 1, 5, 7])) if rows <= 32 or rng.random() < 0.3 else 5
    steps = max(steps, 1)
    far = any(size > FAR for size in sizes.values())
    if far or subject.in_lanes:
        steps = int(rng.choice((1, 34, 60, 120) if far else (70, 131, 300, 530)))
    seed = int(rng.integers(1 << 30))
    dtype = "float32" if subject.part == "triton" or rng.random() < 0.3 else "float64"
    hard, reverse = bool(rng.random() < 0.2), bool(rng.random() < 0.3)
    first = Call({**sizes, "B": batch, "T": steps}, dtype, hard=hard, seed=seed, reverse=reverse)
    lengths = [int(x) for x in rng.choice([0, 1, 2, rows - 1, rows, rows + 1, 3], 3)]
    lengths = [min(x, 20) for x in lengths] if few else lengths
    lengths = [int(x) for x in rng.choice((0, 3, 36, 70, 130), 3)] if far or subject.in_lanes else lengths
    bounds = tuple(accumulate([*lengths[:2], max(lengths[2], 1)], initial=0))
    pack = Call({**sizes, "B": 3, "T": bounds[-1]}, dtype, bounds, bool(rng.random() < 0.3), seed=seed + 1)
    # another dtype, but in native code, where each dtype of a program would be a build of its own
    alone = wide and subject.part == "cpu"
    other = dtype if alone else "float64" if dtype == "float32" and not few else "float32"
    second = Call({**sizes, "B": steps if steps < 6 else 1, "T": steps}, other, seed=seed + 2)
    own = "float32" if few else dtype if alone else "float64"
    short = Call({**sizes, "B": batch, "T": min(steps, 60 if far else 9)}, own, seed=seed + 3)
    plans: list[tuple[Any, Call]] = [*((against_judge, call) for call in (first, pack, second)), (parts_and_steps, short)]
    from tests.fuzz.invariants import LAWS

    for i in sorted(rng.choice(4, 1 if few else 2, replace=False, p=(0.4, 0.25, 0.2, 0.15))):
        how, call = plans[i]
        yield how, replace(call, defaults=wide and how is against_judge and bool(rng.random() < 0.3))
    if subject.program.loop is not None:
        from tests.fuzz.closed_loops import closed_loop

        yield closed_loop, replace(first, sizes={**first.sizes, "T": min(steps, 9)})
    if rng.random() < 0.5:
        yield LAWS[rng.integers(len(LAWS))], pack if rng.random() < 0.3 else second


def attempt(text: str, wish: Wish, sizes: Mapping[str, int], seed: int) -> tuple[list[Problem], Subject | None]:
    """All calls of one program on one backend; the problems, and what was compiled."""
    rng = np.random.default_rng(seed)
    found: list[Problem] = []
    stage = "compile"
    subject = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # of Triton's interpreter
            subject = Subject(text, wish)
            stage = "call"
            for how, call in calls(subject, sizes, rng, wish.backend == "triton", seed >= WIDE):
                stage = f"call: {how.__name__} {call.words()}"
                found += how(subject, call)
    except SpecError as wrong:
        found.append(Problem("invalid", wish.backend, "; ".join(f"{d.code}: {d.message}" for d in wrong.diagnostics)))
    except Unsupported as refusal:
        found.append(Problem("refused", wish.backend, "; ".join(f"{d.code}: {d.message}" for d in refusal.diagnostics)))
    except Exception as crash:
        last = traceback.extract_tb(crash.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.name}"
        found.append(Problem("crash", wish.backend, f"{type(crash).__name__} in {place}: {str(crash).strip()[:400]}", stage))
    return found, subject


__all__ = ["Arrays", "Call", "Problem", "Subject", "Wish", "against_judge", "attempt", "calls", "cast", "compared",
           "differentiated", "error", "name_of", "parts_and_steps"]
