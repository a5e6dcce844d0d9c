"""Recurrences of the literature in a user's words (`specs/*.seq`), each against a loop of its own, written from the paper.

In: a spec and one step in torch (`memories.py`, `cells.py`, `descents.py`, `signals.py`, `layers.py`, `filters.py`,
`traces.py`, `systems.py`, `neighbours.py`, `newer.py`), which shares nothing with the compiler. Compared are all outputs,
final states and gradients: of a batch, of a pack that runs backwards, and of single steps. Native code and Triton have some.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqc
from seqc.emit.names import safe_name
from seqc.frontend.elaborate import load
from seqc.ir.program import Program
from tests.fuzz.trial import Subject, Wish
from tests.harness import draw
from tests.literature.cells import CELLS
from tests.literature.descents import DESCENTS
from tests.literature.filters import FILTERS
from tests.literature.layers import LAYERS
from tests.literature.memories import MEMORIES, Given, Made
from tests.literature.neighbours import NEIGHBOURS
from tests.literature.newer import NEWER
from tests.literature.signals import SIGNALS
from tests.literature.systems import SYSTEMS
from tests.literature.traces import TRACES

Step = Callable[[Given, Given, Given], Made]
STEPS = {step.__name__: step for step in (*MEMORIES, *CELLS, *DESCENTS, *SIGNALS, *LAYERS, *FILTERS, *TRACES, *SYSTEMS,
                                           *NEIGHBOURS, *NEWER)}
FOLDER = Path(__file__).parent / "specs"
SOME = {"cpu": ("neural_queue", "deep_memory", "adpcm", "lorenz96", "cyfa", "spinn", "srukf", "lnn", "kalmanet",
                "hodgkin_huxley", "message", "viterbi_path", "thomas", "tgn"),
        "triton": ("conv_lstm", "consolidation", "dcgru", "lmu", "imm_filter", "sos", "neural_queue", "deep_memory",
                   "predictive_coding", "boolean_net", "adpcm", "lorenz96", "fox", "infini", "all_pole_lattice", "lbfgs",
                   "particle_filter", "student_changepoint", "cyfa", "hrr", "srukf", "capsules",
                   "hodgkin_huxley", "message", "viterbi_path", "bierman", "kiefer", "dither", "kbest")}
STARTS = {  # what a state is near to as a run begins
    "hodgkin_huxley": {"V": -60.0}, "izhikevich": {"v": -60.0, "u": -13.0}, "hsmm": {"a": 0.0},
}
POSITIVE = {**dict.fromkeys(("imm_filter", "changepoint", "neural_queue", "infini", "kla"), ("P", "v", "q", "z", "lam")),
            "adafactor": ("R", "C"), "dcc": ("h",), "bierman": ("d",), "gr4j": ("S", "H", "R")}
STILL = ("every", "begun", "down", "perm")  # counts and a buffer have no gradient
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def made(name: str, lengths: tuple[int, ...], packed: bool) -> tuple[Program, Given]:
    """Arguments: random ones; a count begins at 0, a weight over positions sums to 1, a covariance is one."""
    program = load(FOLDER / f"{name}.seq")
    case = draw(program, sum(lengths) if packed else lengths[0], seed=1, lengths=lengths if packed else None)
    given = {n: torch.as_tensor(x) for n, x in case.arrays.items()}
    for state in program.states:
        x = given[f"{state}_0"]
        if state in ("n", "begun") or state.startswith(("every", "down")):
            x = torch.zeros_like(x)
        elif state in ("w", "mu", "ww", "wr", "u", "p") and name in ("ntm", "imm_filter", "dnc", "skip_rnn"):
            x = torch.softmax(x, -1) if x.ndim > 1 else x.sigmoid()
        elif state in ("P", "A") and x.ndim > 2:
            x = x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype)
        elif state in ("m", "h", "k") and name == "hodgkin_huxley":
            x = x.sigmoid()
        elif name in POSITIVE and state in POSITIVE[name]:
            x = x.abs() + 0.1
        given[f"{state}_0"] = x + STARTS.get(name, {}).get(state, 0.0)
    return program, given


def looped(program: Program, step: Step, given: Given) -> Given:
    """The results of a run from the first step on."""
    states = {n: given[f"{n}_0"] for n in program.states}
    params, rows = {n: given[n] for n in program.params}, []
    for t in range(next(given[n].shape[1] for n in program.inputs)):
        out, states = step({n: given[n][:, t] for n in program.inputs}, params, states)
        rows.append(out)
    last = {f"{n.replace('.', '_')}_T": x for n, x in states.items()}
    return {n: torch.stack([row[n] for row in rows], 1) for n in program.outputs} | last


def backwards_in_parts(program: Program, step: Step, given: Given, bounds: list[int]) -> Given:
    """The results of a pack whose sequences run from their last step to the first."""
    parts = []
    for i, (a, b) in enumerate(pairwise(bounds)):
        shared = {n for n, d in program.params.items() if not d.per_batch}
        own = {n: x if n in shared else x[i : i + 1] for n, x in given.items()}
        own |= {n: given[n][:, a:b].flip(1) for n in program.inputs}
        parts.append({n: x if n.endswith("_T") else x.flip(1) for n, x in looped(program, step, own).items()})
    return {n: torch.cat([part[n] for part in parts], 0 if n.endswith("_T") else 1) for n in parts[0]}


def agree(want: Callable[[Given], Given], got: Callable[[Given], Given], given: Given, dtype: torch.dtype) -> None:
    """Results and every gradient of a loss that is linear in all results."""
    found: list[tuple[Given, Given]] = []
    weights: Given = {}
    for call, kind in ((want, torch.float64), (got, dtype)):
        leaves = {n: (x.to(dtype).to(kind) if x.is_floating_point() else x) for n, x in given.items()}
        moved = {n: x.requires_grad_() for n, x in leaves.items()
                 if x.is_floating_point() and not n.startswith(STILL)}
        results = {n: x for n, x in call(leaves).items() if not n.startswith(STILL)}
        own = torch.Generator().manual_seed(0)
        weights = weights or {n: torch.randn(x.shape, generator=own, dtype=torch.float64) for n, x in results.items()}
        loss = torch.stack([(x * weights[n]).sum() for n, x in results.items() if x.requires_grad]).sum()
        slopes = torch.autograd.grad(loss, list(moved.values()), allow_unused=True)
        pairs = zip(moved.items(), slopes, strict=True)
        found.append((results, {n: torch.zeros_like(x) if s is None else s for (n, x), s in pairs}))
    for one, other in zip(*found, strict=True):
        assert one.keys() <= other.keys()
        for n, x in one.items():
            scale = max(1.0, float(x.detach().abs().max()))
            error = float((x - other[n]).detach().abs().max())
            assert error <= TOLERANCE[dtype] * scale, f"{n}: {error:.2g} of {scale:.2g}"


def called(function: Callable[..., Any], **how: Any) -> Callable[[Given], Given]:
    """A call by names, whose results are a dict."""
    return lambda given: function(**{n.replace(".", "_"): x for n, x in given.items()}, **how)._asdict()


@pytest.mark.parametrize("name", STEPS)
def test_plain_torch(name: str) -> None:
    f, step = seqc.compile(FOLDER / f"{name}.seq", "torch"), STEPS[name]
    program, given = made(name, (6, 6), False)
    agree(lambda x: looped(program, step, x), called(f), given, torch.float64)
    program, given = made(name, (2, 5), True)
    pack = called(f, cu_seqlens=torch.tensor([0, 2, 7]), reverse=True)
    agree(lambda x: backwards_in_parts(program, step, x, [0, 2, 7]), pack, given, torch.float64)
    program, given = made(name, (1, 1), False)

    def once(given: Given) -> Given:
        run = looped(program, step, {n: x[:, None] if n in program.inputs else x for n, x in given.items()})
        return {n: x[:, 0] if n in program.outputs else x for n, x in run.items()}

    agree(once, called(f.step), {n: x[:, 0] if n in program.inputs else x for n, x in given.items()}, torch.float64)


@pytest.mark.parametrize(("backend", "name"), [(backend, name) for backend, names in SOME.items() for name in names])
def test_kernels(backend: str, name: str) -> None:
    subject, dtype = Subject((FOLDER / f"{name}.seq").read_text(), Wish(backend)), torch.float32
    program, given = made(name, (6, 6), False)
    with np.errstate(all="ignore"):  # the interpreter divides 0 by 0 beyond the ends of tiles
        agree(lambda x: looped(program, STEPS[name], x),
              lambda x: subject.function(**{safe_name(n): y for n, y in x.items()})._asdict(), given, dtype)


def test_every_spec_has_a_step() -> None:
    assert {path.stem for path in FOLDER.glob("*.seq")} == set(STEPS)


