"""Cells whose heads are too large for one program: several programs share one out, and wait for each other in every step."""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator
from itertools import product
from math import ceil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqc.backends.triton_gpu.tuning.lowered import Lowered
from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.tiles import choose_tiles
from seqc.backends.triton_gpu.tuning.toolchain import judge
from seqc.diagnostics import Unsupported
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.driver.pipeline import lowerings
from seqc.frontend.elaborate import load
from tests.triton import processes
from tests.triton.test_kernels import interpret
from tests.triton.test_tiles import EMPTY

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
HOPPER = 227 * 1024
MIXED = """spec mixed_cell
dim H, D
input x[H, D], g[H]
param R[H, D, D], U[H, D, D], w[H, D], s[H]
state h[H, D] = 0, n[H] = 0
a = sigmoid(x + R @ h[t-1])
b = U @ (a * h[t-1])
m = mean[D](b) + 0.1 * max[D](a)
v = sum[D](w * h[t-1])
n = 0.5 * n[t-1] + g * v + s
h = a * tanh(b - m) + (1 - a) * h[t-1] * n / (1 + n * n)
output o = h * sum[D](h)
output y = n + sum[D](w * h)
"""
"""A product of a product, sums and a maximum over the units of a step; a state, inputs, outputs, params of a head alone."""
MIXED_FOURS = """spec four_cell
dim H, D, M
input x[H, D], u[H, M]
param R_a[H, D, D], R_b[H, D, D], R_c[H, D, D], R_e[H, D, D], R_f[H, D, D], w[H, D], P[H, M, D], Q[H, D, M]
state h[H, D] = 0
m = tanh(u + P @ h[t-1])
a = sigmoid(x + R_a @ h[t-1])
b = sigmoid(0.5 * x + R_b @ h[t-1] + sum[D](w * h[t-1]))
c = tanh((-2 * R_c) @ h[t-1] + Q @ m)
e = sigmoid(x - R_e @ h[t-1])
f = tanh(R_f @ (a * h[t-1]))
h = a * h[t-1] + (1 - a) * b * c * e + 0.1 * f
output o = h
"""
"""More than four products of what is told, some by what is made of matrices, one of them with rows of another dim."""
SIZES = {"H": 2, "D": 67, "M": 20}, {"H": 1, "D": 16, "M": 20}
RUNS: list[tuple[int, bool | str, dict[str, int]]] = [(3, False, SIZES[0]), (2, True, SIZES[1])]
PACKS = [((2, 0, 5), False), ((3, 1, 0), True)]


def test_teams_of_programs(tmp_path: Path) -> None:
    """Five programs a head and one, three pieces of all units and one, some of which are read again in every step; both ways,
    packs with empty sequences; gates, and all else that a step can hold."""
    (tmp_path / "mixed_cell.seq").write_text(MIXED)
    interpret([("lstm", "step"), (str(tmp_path / "mixed_cell.seq"), "step")], RUNS, packs=PACKS, team=True)


@pytest.mark.long
def test_teams_of_other_cells(tmp_path: Path) -> None:
    (tmp_path / "four_cell.seq").write_text(MIXED_FOURS)
    names = ("gru", "mgu", "slstm", "plrnn", "rnn", "leaky_rnn", "bidirectional_gru", "layer", "oscillators", "clipped_cell")
    names = (*names, "ct_lstm", str(tmp_path / "four_cell.seq"))
    interpret([(name, "step") for name in names], RUNS, packs=PACKS, team=True)


def test_no_order_of_programs_shows() -> None:
    """The same bits in every order, whole teams in each launch; without one of its programs a team waits for ever."""
    done = processes.run(["-m", "tests.triton.team_runs", str(ROOT / "specs/lstm.seq")])
    assert done.returncode == 0, done.stderr[-3000:]


# ---- the protocol, in every order ----

PROGRAMS, STEPS = 3, 3


class Wrong(Exception):
    """A program reads what is not of its step, or none can go on."""


def explore(room: int, programs: int, buffers: int = 2) -> int:
    """Every order in which programs of one team can begin, tell, arrive, and read each other's pieces: the states seen.

    A state: of each program its next action (None: not begun), the counter, and the step of every piece in each buffer. An
    action: tell the piece of a step, raise the counter, wait for it, read one other piece. room: how many run at once.
    """
    reads = [[("read", t, j) for j in range(programs)] for t in range(STEPS)]
    actions = [a for t in range(STEPS) for a in (("tell", t), ("arrive", t), ("wait", t), *reads[t])]
    start = (tuple([-1] * programs), 0, tuple([(-1,) * buffers] * programs))
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        after = list(following(state, actions, room, programs, buffers))
        if not after and state[0] != (len(actions),) * programs:
            raise Wrong("stuck")
        fresh = [x for x in after if x not in seen]
        seen.update(fresh)
        todo += fresh
    return len(seen)


State = tuple[tuple[int, ...], int, tuple[tuple[int, ...], ...]]


def following(state: State, actions: list[tuple[object, ...]], room: int, programs: int, buffers: int) -> Iterator[State]:
    at, met, told = state
    running = sum(0 <= x < len(actions) for x in at)
    for i in range(programs):
        moved = (*at[:i], at[i] + 1, *at[i + 1 :])
        if at[i] == -1:
            if running < room:
                yield moved, met, told
        elif at[i] < len(actions):
            what, step, *other = actions[at[i]]
            assert isinstance(step, int)
            if what == "tell":
                own = tuple(step if b == step % buffers else x for b, x in enumerate(told[i]))
                yield moved, met, (*told[:i], own, *told[i + 1 :])
            elif what == "arrive":
                yield moved, met + 1, told
            elif what == "wait" and met >= (step + 1) * programs:
                yield moved, met, told
            elif what == "read":
                (j,) = other
                assert isinstance(j, int)
                if told[j][step % buffers] != step:
                    raise Wrong(f"program {i} reads step {told[j][step % buffers]} in step {step}")
                yield moved, met, told


def test_no_program_waits_for_one_that_is_not_resident() -> None:
    """Where all programs of a team run at once none waits for ever, and each reads its own step, whatever the order. With room
    for one less some order is stuck; with one place instead of two for what is told, some program reads a later step."""
    assert explore(PROGRAMS, PROGRAMS) > 800
    with pytest.raises(Wrong, match="stuck"):
        explore(PROGRAMS - 1, PROGRAMS)
    with pytest.raises(Wrong, match="reads step"):
        explore(PROGRAMS, PROGRAMS, buffers=1)


# ---- how many are launched ----


@pytest.fixture(scope="module")
def lstm() -> ModuleType:
    made = compile_spec(ROOT / "specs/lstm.seq", Options("triton"))
    return load_emitted(made.text, made.signature.spec)


def test_a_launch_has_no_more_programs_than_run_at_once(lstm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole teams, and no more than the multiprocessors hold by the shared memory and the registers of each program."""
    monkeypatch.setattr(lstm, "_room", lambda device: HOPPER)
    x = torch.empty(1, dtype=torch.bfloat16)
    shared, registers = 228 * 1024, 65536
    sizes = (100, 256, 768, 1536, 2048)
    for units, B, heads, D, packed in product((8, 64, 132), (1, 16, 40, 300), (1, 4), sizes, (False, True)):
        team, pieces = -(-D // 16), -(-D // 256)
        monkeypatch.setattr(lstm, "_machine", lambda device, units=units: (units, shared, registers))
        for kernel in ("team_forward", "team_infer", "team_backward"):
            found = lstm._team_triton(kernel, x, B, heads, D, packed)
            if found is None:
                assert team > units, "a program for each multiprocessor always has room for something"
                continue
            each, many, held, at_once = found
            kept, told, piece, again = lstm._needs_triton(2, D, each)[kernel]
            need = 256 + max(kept, min(at_once, pieces) * told) + held * piece + again * (held < pieces)
            fit = min(shared // (need + 1024), registers // (256 * 128))
            assert 0 < many <= units * fit and many % team == 0 and need <= HOPPER and each in ((16,) if packed else (16, 32))
            assert held == pieces or (held < pieces and many <= units), "who reads again has a multiprocessor for itself"
            launches = [ceil((B if packed else ceil(B / n)) * heads * team / many) for n in (each, 16)]
            assert each == 16 or launches[0] < launches[1], "a program has more sequences only where fewer launches do"


@pytest.mark.parametrize(
    ("machine", "D", "held"),
    [("sm_90", 768, (3, 3)), ("sm_90", 1536, (6, 6)), ("sm_90", 2048, (5, 6)), ("sm_80", 1536, (3, 4)), ("sm_80", 2048, None)],
)
def test_what_no_program_has_room_for(
    lstm: ModuleType, monkeypatch: pytest.MonkeyPatch, machine: str, D: int, held: tuple[int, int] | None
) -> None:
    """How many pieces of 256 columns a program holds of one head's matrices, forward and backward: of 1,536 units all on an
    H100; of 2,048 it reads the rest in every step. On an A100 128 programs, of which each needs all of a multiprocessor, do not
    run at once. The solver says the same."""
    target = target_named(machine)
    monkeypatch.setattr(lstm, "_room", lambda device: target.shared_per_program)
    one = target.units, target.shared_per_unit, target.registers_per_unit
    monkeypatch.setattr(lstm, "_machine", lambda device: one)
    x = torch.empty(1, 1, 1, 1, dtype=torch.bfloat16)
    lstm._READY.clear()
    lowered = [Lowered(block, {"H": 1, "D": D}, "bf16") for block in lowerings(load(ROOT / "specs/lstm.seq"))]
    if held is None:
        with pytest.raises(Unsupported, match="wait for each other, and run at once on 108 units"):
            choose_tiles(lowered, machine, EMPTY)
        with pytest.warns(UserWarning, match="plain torch runs"):
            assert not lstm._ready_triton(x, D)
        return
    assert lstm._ready_triton(x, D)
    chosen = choose_tiles(lowered, machine, EMPTY).kernels
    for kernel, most in zip(("forward", "backward"), held, strict=True):
        own = chosen[kernel].choice.own("team_" + kernel, "held"), chosen[kernel].choice.own("team_" + kernel, "at_once")
        assert own == lstm._held_triton("team_" + kernel, x, D)[:2] and own[0] == most


@pytest.mark.long
@pytest.mark.parametrize(("machine", "D"), [("sm_90", 768), ("sm_90", 1536), ("sm_90", 2048), ("sm_80", 1536)])
def test_machine_code_takes_no_more_than_the_model_counts(machine: str, D: int) -> None:
    """What the launcher's bound rests on: shared memory and registers of programs that nearly fill a multiprocessor."""
    lowered = [Lowered(block, {"H": 1, "D": D}, "bf16") for block in lowerings(load(ROOT / "specs/lstm.seq"))]
    chosen = choose_tiles(lowered, machine, EMPTY).kernels
    kernels = [chosen[name] for name in ("forward", "infer", "backward")]
    for one, said in zip(kernels, judge([one.job for one in kernels]), strict=True):
        assert said.error is None and said.registers <= 255
        assert said.shared <= one.choice.part(one.name, "bytes of shared memory") <= target_named(machine).shared_per_program


def test_sizes_that_only_a_team_serves(lstm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One head of 768 units in bf16 is served forward and backward, and plain torch takes what no team has room for."""
    monkeypatch.setattr(lstm, "_room", lambda device: HOPPER)
    x = torch.empty(1, 1, 1, 1, dtype=torch.bfloat16)
    assert lstm._alone_triton("backward", x, 128) and not lstm._alone_triton("infer", x, 256)
    assert all(lstm._ready_triton(x, D) for D in (128, 200, 256, 512, 768, 1024))
    with pytest.warns(UserWarning, match="plain torch runs"):
        assert not lstm._ready_triton(x, 4096)
    monkeypatch.setattr(lstm, "_machine", lambda device: (20, 228 * 1024, 65536))
    lstm._READY.clear()
    assert lstm._ready_triton(x, 512), "two programs on a multiprocessor"
    with pytest.warns(UserWarning, match="plain torch runs"):
        assert not lstm._ready_triton(x, 768), "48 programs would wait for each other on 20 multiprocessors, of two each"


@pytest.mark.parametrize("spec", ["lssl", "phased_lstm"])
def test_launchers_know_every_name(spec: str) -> None:
    """A team's kernels leave a gradient in parts of so many steps each, which no kernel of one program a head does."""
    module = load_emitted(compile_spec(ROOT / f"specs/{spec}.seq", Options("triton")).text, spec)
    known = vars(module).keys() | vars(builtins).keys()
    launchers = [f for name, f in vars(module).items() if name.endswith("backward_triton")]
    read = {i.argval for f in launchers for i in dis.get_instructions(f) if i.opname == "LOAD_GLOBAL"}
    assert any(name.endswith("team_backward_kernel") for name in read)
    assert read <= known
