"""Inputs that are indices: rows of a param, of an input and of a state read at the positions that an input tells.

Judged by plain torch loops, on plain torch, native code and Triton's interpreter.
"""

from types import ModuleType

import pytest
import torch

from seqc.check.races import Course
from seqc.check.sampling import sample_sizes
from seqc.check.verify_emitted import Case, against_oracle
from seqc.diagnostics import SpecError, Unsupported
from seqc.driver.compile import Options, compile_program, compile_spec
from seqc.driver.load_emitted import load_emitted
from seqc.driver.pipeline import lower
from seqc.frontend.elaborate import load
from seqc.ir.arguments import argument_table
from seqc.ir.graph_text import parse, show
from seqc.semantics.reference import gradients
from tests.triton import processes

CELL = '''spec reader
"""A cell that reads a table for each head, another table one step late, and an index as a number."""
dim V, D, H = 2
input w[H] index V, u index V, x[D]
param E[H, V, D], F[V, D], R[D, D]
state h[D] = 0
h = tanh(x + sum[H](E[w]) + F[u[t-1]] + 0.1 * u + R @ h[t-1])
output h
'''
TOKENS = '''spec tokens
"""A decaying sum of rows: nothing but an index comes with a step."""
dim V, D
input w index V
param E[V, D], g[D] in [-inf, 0]
state h[D] = 0
h = exp(g) * h[t-1] + E[w]
output h
'''
SIZES = {"V": 5, "D": 3, "H": 2}
B, T = 2, 6


@pytest.fixture(scope="module")
def cell() -> ModuleType:
    return load_emitted(compile_spec(CELL, Options(dims=SIZES)).text, "reader")


@pytest.fixture(scope="module")
def tokens() -> ModuleType:
    return load_emitted(compile_spec(TOKENS, Options("torch")).text, "tokens")


def cell_data(T: int = T) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(T)
    shapes = {"x": (B, T, 3), "E": (2, 5, 3), "F": (5, 3), "R": (3, 3), "h_0": (B, 3)}
    found = {n: torch.randn(s, generator=made, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}
    w, u = (torch.randint(0, 5, s, generator=made) for s in ((B, T, 2), (B, T)))
    return {"w": w, "u": u, **found}


def cell_loop(w, u, x, E, F, R, h_0, backwards=False):
    h, rows = h_0, {}
    steps = range(x.shape[1])
    for t in reversed(steps) if backwards else steps:
        before = t + 1 if backwards else t - 1
        late = u[:, before] if before in steps else torch.zeros_like(u[:, 0])
        read = sum(E[k][w[:, t, k]] for k in range(2)) + F[late]
        h = torch.tanh(x[:, t] + read + 0.1 * u[:, t, None].double() + h @ R.T)
        rows[t] = h
    return torch.stack([rows[t] for t in sorted(rows)], 1), h


def tokens_loop(w, E, g, h):
    rows = []
    for t in range(w.shape[1]):
        h = g.exp() * h + E[w[:, t]]
        rows.append(h)
    return torch.stack(rows, 1), h


def slopes(results, tensors):
    made = torch.Generator().manual_seed(9)
    loss = sum((r * torch.randn(r.shape, generator=made, dtype=torch.float64)).sum() for r in results)
    return torch.autograd.grad(loss, [x for x in tensors if x.requires_grad])


def same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * max(1.0, float(b.detach().abs().max())))


@pytest.mark.parametrize("form", ["_CPU", "_TORCH"])
@pytest.mark.parametrize("reverse", [False, True])
def test_sequences(cell: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str, reverse: bool) -> None:
    monkeypatch.setattr(cell, "_form", lambda *_: getattr(cell, form))
    given = cell_data()
    found, wanted = cell.reader(**given, reverse=reverse), cell_loop(**given, backwards=reverse)
    same(found, wanted)
    same(slopes(found, given.values()), slopes(wanted, given.values()))
    lengths = [3, 2, 7]
    row = {n: given[n].detach().flatten(0, 1)[None].requires_grad_(n == "x") for n in "wux"}
    starts = torch.cat([given["h_0"], given["h_0"][:1]])
    shared = {n: given[n] for n in ("E", "F", "R")}
    bounds = torch.tensor([0, 3, 5, 12])
    found = cell.reader(**row, **shared, h_0=starts, cu_seqlens=bounds, reverse=reverse)
    parts = zip(*(row[n].split(lengths, 1) for n in "wux"), starts.split(1), strict=True)
    each = [cell_loop(w, u, x, *shared.values(), h, reverse) for w, u, x, h in parts]
    wanted = torch.cat([y for y, _ in each], 1), torch.cat([h for _, h in each])
    same(found, wanted)
    own = [row["x"], *shared.values(), given["h_0"]]
    same(slopes(found, own), slopes(wanted, own))


def test_index_alone_tells_the_length(tokens: ModuleType) -> None:
    """No input of real numbers: a param tells the dtype. Blocks, a pack, a step, a Module, the meta device, a trace."""
    made = torch.Generator().manual_seed(1)
    w = torch.randint(0, 5, (B, 70), generator=made)
    E, g = torch.randn(5, 3, generator=made, dtype=torch.float64), -torch.rand(3, generator=made, dtype=torch.float64)
    E.requires_grad_(), g.requires_grad_()
    zero = torch.zeros(B, 3, dtype=torch.float64)
    found, wanted = tokens.tokens(w, E, g), tokens_loop(w, E, g, zero)
    same(found, wanted)
    same(slopes(found, [E, g]), slopes(wanted, [E, g]))
    same(tokens.tokens(w.to(torch.int32), E, g), wanted)
    pack = tokens.tokens(w.flatten()[None], E, g, cu_seqlens=torch.tensor([0, 70, 140]))
    same([pack.h_T], [wanted[1]])
    with pytest.raises(IndexError, match="w is 7 at B = 0"):
        tokens.tokens_step(w[:, 0] + 7 - w[0, 0], E, g)
    same(tokens.tokens_step(w[:, 0], E, g), (lambda y, h: (y[:, 0], h))(*tokens_loop(w[:, :1], E, g, zero)))
    layer = tokens.Tokens(V=5, D=3, dtype=torch.float64)
    layer.load_state_dict({"E": E, "g": g})
    same(layer(w), wanted)
    same(layer(w.T, axis=0), [wanted[0].transpose(0, 1), wanted[1]])
    same(torch.compile(layer, backend="aot_eager", fullgraph=True)(w), wanted)
    meta = tokens.Tokens(V=5, D=3, device="meta")
    assert meta(torch.empty(B, 4, dtype=torch.int64, device="meta")).h.shape == (B, 4, 3)
    assert tokens.tokens(w[:, :0], E, g).h.shape == (B, 0, 3)


def test_higher_derivatives(tokens: ModuleType) -> None:
    """Second derivatives, forward mode and vmap pass by the index."""
    made = torch.Generator().manual_seed(2)
    w = torch.randint(0, 5, (3, B, 4), generator=made)
    E, g = torch.randn(5, 3, generator=made, dtype=torch.float64), -torch.rand(3, generator=made, dtype=torch.float64)
    E.requires_grad_(), g.requires_grad_()
    zero = torch.zeros(B, 3, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda E, g: tokens.tokens(w[0], E, g).h, (E, g))
    pushed = torch.func.jvp(lambda E: tokens.tokens(w[0], E, g).h, (E,), (E,))[1]
    same([pushed], [torch.func.jvp(lambda E: tokens_loop(w[0], E, g, zero)[0], (E,), (E,))[1]])
    rows = torch.vmap(lambda w: tokens.tokens(w, E, g).h)(w)
    same(rows, [tokens.tokens(one, E, g).h for one in w])


def test_sums_have_one_order(tokens: ModuleType) -> None:
    """Many entries for each row: the gradient of the table is the same to the bit from run to run."""
    made = torch.Generator().manual_seed(3)
    w = torch.randint(0, 5, (8, 512), generator=made)
    E, g = torch.randn(5, 3, generator=made).requires_grad_(), -torch.rand(3, generator=made)
    runs = [torch.autograd.grad(tokens.tokens(w, E, g).h.sin().sum(), E)[0] for _ in range(5)]
    assert all(torch.equal(runs[0], other) for other in runs)


def test_what_no_position_is(cell: ModuleType) -> None:
    given = cell_data()
    given["w"][1, 4, 0] = 5
    words = r"w is 5 at B = 1, T = 4, H = 0; V has the positions 0 to 4"
    with pytest.raises(IndexError, match=words):
        cell.reader(**given)
    with torch.no_grad(), pytest.raises(IndexError, match=words):
        cell.reader(**given)
    row = {n: x[1:] if n in ("w", "u", "x", "h_0") else x for n, x in given.items()}
    cell.reader(**row, cu_seqlens=torch.tensor([0, 4]))  # what is behind the last sequence is nobody's
    with pytest.raises(TypeError, match=r"w is torch.float64; an index is an array of whole numbers: w.long\(\)"):
        cell.reader(**{**given, "w": given["w"].double()})
    given["w"][1, 4, 0] = -1
    with pytest.raises(IndexError, match="w is -1"):
        cell.reader(**given)


def test_oracle() -> None:
    program = load(CELL)
    given = cell_data()
    arrays = {n: x.detach().numpy() for n, x in given.items()}
    made = torch.Generator().manual_seed(9)
    results = cell_loop(**given)
    weights = [torch.randn(r.shape, generator=made, dtype=torch.float64) for r in results]
    cotangents = dict(zip(("h", "h_T"), weights, strict=True))
    found, found_slopes = gradients(program, arrays, {n: x.numpy() for n, x in cotangents.items()})
    same([torch.tensor(found["h"]), torch.tensor(found["h_T"])], [r.detach() for r in results])
    same([torch.tensor(found_slopes[n]) for n in given if n not in "wu"], slopes(results, given.values()))
    arrays["w"] = arrays["w"] + 5
    with pytest.raises(IndexError, match="an index is outside of V"):
        gradients(program, arrays, None)


def test_text_of_graphs_keeps_the_index() -> None:
    block = lower(load(CELL), "step")
    for graph in (block.forward, block.backward):
        assert parse(show(graph)) == dict(graph)


def test_rows_of_inputs_and_states() -> None:
    """Rows of what a step has made, in plain torch and native code; without a recurrence kernels have nothing to do."""
    text = """spec picks
dim N, D
input p index N, x[N, D]
state S[N, D] = 0
S = 0.5 * S[t-1] + x
output first[D] = x[p]
output second[D] = sin(S[t-1])[p]
"""
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(B, T, 4, 3, generator=draw, dtype=torch.float64).requires_grad_()
    p = torch.randint(0, 4, (B, T), generator=draw)
    S, rows = torch.zeros(B, 4, 3, dtype=torch.float64), []
    for t in range(T):
        batch = torch.arange(B)
        rows.append((x[batch, t, p[:, t]], S[batch, p[:, t]].sin()))
        S = 0.5 * S + x[:, t]
    wanted = [torch.stack(y, 1) for y in zip(*rows, strict=True)] + [S]
    expected = slopes(wanted, [x])
    for backend in ("torch", "cpu"):
        found = load_emitted(compile_spec(text, Options(backend)).text, f"picks_{backend}").picks(p, x)
        same(found, wanted)
        same(slopes(found, [x]), expected)
    alone = text.replace("output second[D] = sin(S[t-1])[p]\n", "").replace("state S[N, D] = 0\nS = 0.5 * S[t-1] + x\n", "")
    with pytest.raises(Unsupported, match="kernels read and write no rows"):
        compile_spec(alone, Options("cpu"))


MEMORY = """spec memory
dim N = 5, K = 3, D
input x[K, D], read index N, w[K] index N
param R[D, D]
state M[N, D] = 0, h[D] = 0
o = M[t-1, read]
h = tanh(R @ h[t-1] + o)
M[w] = x + 0.5 * tanh(R @ o)
output o
output h
"""


def memory_loop(x, read, w, R, M, h):
    """Rows are written one after the other: of several for one place the last stays."""
    batch, rows = torch.arange(len(x)), []
    for t in range(x.shape[1]):
        o = M[batch, read[:, t]]
        h = torch.tanh(h @ R.T + o)
        for k in range(x.shape[2]):
            M = M.index_put((batch, w[:, t, k]), x[:, t, k] + 0.5 * torch.tanh(o @ R.T))
        rows.append((o, h))
    return *(torch.stack(y, 1) for y in zip(*rows, strict=True)), M, h


def memory_data() -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(7)
    shapes = [(B, T, 3, 2), (2, 2), (B, 5, 2), (B, 2)]
    x, R, M, h = (torch.randn(s, generator=made, dtype=torch.float64).requires_grad_() for s in shapes)
    read, w = (torch.randint(0, 5, s, generator=made) for s in ((B, T), (B, T, 3)))
    assert (w[..., :2] == w[..., 1:]).any()
    return [x, read, w, R, M, h]


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    return load_emitted(compile_spec(MEMORY, Options("auto", dims={"D": 2})).text, "memory")


@pytest.mark.parametrize("form", ["_CPU", "_TORCH"])
def test_rows_are_written(memory: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A table that a step reads a row of, and writes three rows of; some rows twice."""
    monkeypatch.setattr(memory, "_form", lambda *_: getattr(memory, form))
    x, read, w, R, M, h = given = memory_data()
    found, wanted = memory.memory(x, read, w, R, M_0=M, h_0=h), memory_loop(*given)
    same(found, wanted)
    found_slopes = slopes(found, given)
    same(found_slopes, slopes(wanted, given))
    one = [x[:, 0], read[:, 0], w[:, 0], R]
    stepped, wanted = memory.memory_step(*one, M_0=M, h_0=h), memory_loop(x[:, :1], read[:, :1], w[:, :1], R, M, h)
    same(stepped, [wanted[0][:, 0], wanted[1][:, 0], *wanted[2:]])
    same(slopes(stepped, given), slopes(wanted, given))
    pushed = torch.func.jvp(lambda R: memory.memory(x, read, w, R, M_0=M, h_0=h).h, (R,), (R,))[1]
    same([pushed], [torch.func.jvp(lambda R: memory_loop(x, read, w, R, M, h)[1], (R,), (R,))[1]])
    kept = getattr(memory, f"_saved{form.lower()}")(False, B, T, 5, 3, 2, torch.float64, torch.float64)
    assert all(5 not in shape for shape, _ in kept), "a table is kept for the gradient"
    pack = [v.detach().flatten(0, 1)[None] for v in (x, read, w)]
    packed = memory.memory(*pack, R, M_0=M, h_0=h, cu_seqlens=torch.tensor([0, T, 2 * T]))
    same(packed, [y.flatten(0, 1)[None] if i < 2 else y for i, y in enumerate(found)])
    back = memory.memory(*(v.detach().flip(1) for v in (x, read, w)), R, M_0=M, h_0=h, reverse=True)
    same(back, [y.flip(1) if i < 2 else y for i, y in enumerate(found)])
    program = load(MEMORY)
    arrays = {a.name: v.detach().numpy() for a, v in zip(argument_table(program), given, strict=True)}
    made = torch.Generator().manual_seed(9)
    cotangents = {n: torch.randn(r.shape, generator=made, dtype=torch.float64).numpy() for n, r in found._asdict().items()}
    results, oracle = gradients(program, arrays, cotangents)
    same([torch.tensor(results[n]) for n in found._fields], [r.detach() for r in found])
    same([torch.tensor(oracle[n]) for n in ("x", "R", "M_0", "h_0")], found_slopes)


BESIDE = {
    "two axes": """spec grid
axis t, u
dim D, V
input x[D], w index V
param E[V, D], a[D] in [0, 1]
buffer m[D] init 1
state h[D] = 0
h = m * a * h[t-1] + 0.5 * h[u-1] + x + E[w]
output h
""",
    "lags": """spec lags
dim D, V, L = 3
input x[D], w index V
param E[V, D]
state h[D] = 0
e = E[w]
h = 0.5 * h[t-1] + x + e[t-2] + sum[L](index[L] * e[t-index[L]])
output h
""",
    "complex tables": """spec cplx
dim N = 5, D, V
input x[D], w index N, v index V
param E[V, D] complex
state M[N, D] complex = 0
M[w] = 0.5 * M[t-1, w] + x * E[v]
output o = re(M[t-1, w])
""",
}


@pytest.mark.parametrize("text", BESIDE.values(), ids=BESIDE)
def test_beside_other_statements(text: str) -> None:
    """Indices, buffers and tables beside a second axis, lags of what is read, and complex values, against the oracle."""
    compiled = compile_spec(text, Options("torch"))
    module = load_emitted(compiled.text, compiled.signature.spec)
    found = list(against_oracle(Case(compiled.program, module, sample_sizes(compiled.program), 5, "float64", False)))
    assert len(found) == 2 and all(one.ok for one in found), found


def test_both_directions() -> None:
    text = CELL.replace("input w", "scan both shared\ninput w")
    made = load_emitted(compile_spec(text, Options("torch", dims=SIZES)).text, "reader")
    given = cell_data()
    back = torch.zeros_like(given["h_0"])
    ahead, behind = cell_loop(**given), cell_loop(**{**given, "h_0": back}, backwards=True)
    wanted = torch.cat([ahead[0], behind[0]], -1), ahead[1], behind[1]
    found = made.reader(**given)
    same(found, wanted)
    same(slopes(found, given.values()), slopes(wanted, given.values()))


def test_triton() -> None:
    """In Triton's interpreter, which a process of its own runs: a cell step by step, and sums in blocks."""
    code = f"""
from seqc.check.verify_emitted import Case, against_oracle
from seqc.driver.compile import Options, compile_spec
from seqc.driver.load_emitted import load_emitted
runs = ((5, (0, 3, 3, 5), True), (3, None, False))
for (text, name), (steps, bounds, reverse) in zip((({CELL!r}, "reader"), ({TOKENS!r}, "tokens")), runs):
    compiled = compile_spec(text, Options("triton"))
    module = load_emitted(compiled.text, name)
    vars(module)["_form"] = lambda *_: module._TRITON
    case = Case(compiled.program, module, dict(B=2, D=4, V=5, H=2), steps, "float32", False, "cpu", bounds, reverse)
    found = list(against_oracle(case))
    assert len(found) == 2 and all(f.ok for f in found), found
"""
    done = processes.run(["-c", code])
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_race_takes_whole_numbers() -> None:
    compiled = compile_spec(TOKENS, Options("torch"))
    course = Course(compiled, {"B": 2, "T": 4, "V": 5, "D": 3}, "cpu")
    given = course.arguments(torch.float64)
    assert given["w"].dtype == torch.int64 and given["E"].requires_grad
    assert course.called(given)["h"].shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("h = h[t-1] + x * E[x]", "is no index"),
        ("h = h[t-1] + x * R[w]", "there is no dim `V`"),
        ("h = h[t-1] + x + E[2 * w]", "the brackets of `E` hold no time"),
        ("y[w] = x", "`y` cannot be written at an index"),
        ("h[w] = x", "`w` tells no rows of `h`"),
    ],
)
def test_mistakes(line: str, words: str) -> None:
    head = "spec a\ndim V, D\ninput w index V, x[D]\nparam E[V, D], R[D]\nstate h[D] = 0\noutput h\n"
    with pytest.raises(SpecError) as caught:
        compile_program(load(head + line + "\n"))
    assert words in str(caught.value)
