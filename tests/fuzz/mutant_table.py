"""Seeded bugs: one small change of the compiler each, and the quickest run that must tell it from the right one.

A change is a file, a text that stands there once, and what it becomes. The run is a spec of `mutant_specs` on a backend, with a
form and a number of rows where these matter.
"""

from __future__ import annotations

from dataclasses import dataclass

ELEMENTWISE, STRUCTURE = "seqc/ir/ops/elementwise.py", "seqc/ir/ops/structure.py"
DECAY, CHUNK, FORM = "passes/blocks/decay.py", "passes/blocks/chunkwise.py", "passes/blocks/form.py"
COUPLED, TURNING, BOUNDARY = "passes/blocks/coupled.py", "passes/blocks/turning.py", "passes/blocks/boundary.py"
TAPS = "seqc/driver/compose/taps.py"
LAWS, CALLS = "passes/simplify/laws.py", "seqc/frontend/functions.py"
PACKS, EAGER = "seqc/emit/packs.py", "backends/torch_eager/runtime.py"
RUNTIME, PARTS, MATH = (f"backends/native_cpu/{file}.py" for file in ("runtime", "parts", "vector_math"))
DEVICE, MORE, SMOOTH = (f"backends/triton_gpu/device{x}.py" for x in ("", "_more", "_elementwise"))


@dataclass(frozen=True)
class Mutant:
    """A change, and where it shows. rows: of a block, in the form `form`."""

    path: str
    old: str
    new: str
    spec: str
    backend: str = "torch"
    form: str | None = None
    rows: int | None = None


def _step(path: str, spec: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(path, old, new, spec, form="step") for old, new in changes]


def _block(path: str, spec: str, form: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(path, old, new, spec, form=form, rows=16) for old, new in changes]


def _native(path: str, spec: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(path, old, new, spec, "cpu") for old, new in changes]


def _triton(path: str, spec: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(path, old, new, spec, "triton", rows=16) for old, new in changes]


MUTANTS: tuple[Mutant, ...] = (
    # ---- derivatives of elementwise operators
    *_step(ELEMENTWISE, "smooth",
        ("(lambda n, d: d, lambda n, d: -d)", "(lambda n, d: d, lambda n, d: d)"),
        ("lambda n, d: -(d * n) / n.args[1]", "lambda n, d: (d * n) / n.args[1]"),
        ('inside = d * c * op("pow", x, c - 1.0)', 'inside = d * c * op("pow", x, c)'),
        ('lambda n, d: d * op("sign", n.args[0])', "lambda n, d: d"),
        ("lambda n, d: d * (n + 1.0)", "lambda n, d: d * n"),
        ("d * n * (1.0 - n)", "d * n * (1.0 + n)"),
        ("d * (1.0 - n * n)", "d * (1.0 - n)")),
    *_step(ELEMENTWISE, "smooth too",
        ("lambda n, d: d / (n.args[0] + 1.0)", "lambda n, d: d / n.args[0]"),
        ('d * op("sigmoid", -n.args[0])', 'd * op("sigmoid", n.args[0])'),
        ('op("exp", -(n.args[0] * n.args[0]))', 'op("exp", n.args[0] * n.args[0])'),
        ('lambda n, d: -(d * op("sin", n.args[0]))', 'lambda n, d: d * op("sin", n.args[0])')),
    *_step(ELEMENTWISE, "decrees",
        ('Op("stopgrad", 1, lambda x: x, (None,)', 'Op("stopgrad", 1, lambda x: x, (lambda n, d: d,)'),
        ("(None, lambda n, d: d * n.args[2], None)", "(None, lambda n, d: d, None)")),
    *_step(ELEMENTWISE, "ties",
        ('_half_if_tied("lt", "le")', '_half_if_tied("le", "le")'),
        ('_half_if_tied("gt", "ge")', '_half_if_tied("ge", "ge")'),
        ("where(op(strict, a, b), 1.0, 0.5), 0.0)", "where(op(strict, a, b), 1.0, 1.0), 0.0)")),
    *_step(STRUCTURE, "ties", ('d / total(where(hit, 1.0, 0.0), n.names("over"))', "d")),
    *_step("seqc/analysis/derivative.py", "sums",
        ("return total(part, lost), chosen, ()", "return part, chosen, ()"),
        ("return total(d, [x for x in d.dims if x not in dims]), tuple(", "return d, tuple(")),
    # ---- derivatives along time, inside a block
    *_block(STRUCTURE, "element", "scan",
        ("shift(n.args[0], dim, 1 if reverse else -1)", "shift(n.args[0], dim, -1 if reverse else 1)"),
        ("shift(n, dim, -1 if reverse else 1)", "n"),
        ("take(n.args[0] * _scan_cotangent(n, d), n.text(\"dim\"), at)", "take(_scan_cotangent(n, d), n.text(\"dim\"), at)"),
        ('-n.number("by"))', 'n.number("by"))')),
    *_block(STRUCTURE, "maximum", "scan",
        ('where(node("eq", old, n.args[1]), 0.5, 0.0)', 'where(node("eq", old, n.args[1]), 1.0, 0.0)'),
        ("_max_scan_cotangent(n, d) * (1.0 - kept)", "_max_scan_cotangent(n, d)")),
    *_block(STRUCTURE, "decayed", "chunkwise",
        ('n.number("block"), not n.number("reverse")', 'n.number("block"), bool(n.number("reverse"))')),
    *_block(STRUCTURE, "delta", "chunkwise", ("-total(left * right, over)", "total(left * right, over)")),
    *_block(STRUCTURE, "unequal", "chunkwise", ("-total(inner * right, columns2)", "total(inner * right, columns2)")),
    *_block(STRUCTURE, "element", "scan", ("place = const(float(at)) if at >= 0 else size(dim) + float(at)",
                                             "place = const(float(at)) if at >= 0 else size(dim) + float(at) - 1.0")),
    # ---- decays over spans
    *_block(DECAY, "decayed", "chunkwise",
        ('cumsum(self.log, ROW, reverse=True, exclusive=True))', 'cumsum(self.log, ROW, reverse=True))'),
        ('up = node("exp", cumsum(self.log, ROW, block, exclusive=exclusive))',
         'up = node("exp", cumsum(self.log, ROW, block, exclusive=True))'),
        ('const(1.0) if exclusive else node("exp", self.log), const(1.0)', "const(1.0), const(1.0)"),
        ("FACTORED_SPAN = 2.0", "FACTORED_SPAN = 2000.0")),
    *_block(DECAY, "signed", "chunkwise",
        ("return shift(run, ROW, 1) if exclusive else run", "return run"),
        ("return where(last, 1.0, shift(run, ROW, -1))", "return run"),
        ("return where(first(), 1.0, shift(run, ROW, 1)) if exclusive else run", "return run"),
        ('"gt" if strict else "ge"', '"gt"')),
    *_block(DECAY, "gated", "chunkwise",
        ('node("logsigmoid", -d.args[1].args[0])', 'node("logsigmoid", d.args[1].args[0])'),
        ('return a + b if d.op == "mul" else a - b', "return a + b"),
        ("None if inner is None else inner * 0.5", "inner")),
    *_block(CHUNK, "mild", "chunkwise",
        ('node("exp", -cumsum(d.log, ROW, rows))', 'node("exp", -cumsum(d.log, ROW, rows, exclusive=True))')),
    *_block(CHUNK, "decayed", "chunkwise",
        ('self._named("to_end", d.to_end())', 'self._named("to_end", d.from_start(False))'),
        ("out = d.whole() * out", "out = out")),
    *_block(CHUNK, "delta", "chunkwise",
        ("return seen(read)._read(read.by, read.over, True, ())", "return seen(read)._read(read.by, read.over, False, ())")),
    *_block("passes/blocks/transition.py", "gated", "chunkwise",
        ("(before[0] + x, before[1] + known)", "(x, before[1] + known)")),
    # ---- rows outside the sequence, and what a block begins with
    *_block(FORM, "element", "scan",
        ("self._masked(coefficient, 1.0)", "self._masked(coefficient, 0.0)"),
        ("self._masked(given, 0.0)", "self._masked(given, 1.0)"),
        ("keep = where(VALID, 0.0, 1.0)", "keep = where(VALID, 0.0, 0.0)")),
    *_block(FORM, "maximum", "scan", ("self._masked(given, -math.inf)", "self._masked(given, 2.0)")),
    *_block(BOUNDARY, "bounded", "chunkwise",
        ('node("ge", start + index(ROW), const(period))', 'node("gt", start + index(ROW), const(period))'),
        ('node("ge", start + rows, const(period))', 'node("gt", start + rows, const(period))'),
        ("where(reached, since, start + rows)", "start + rows")),
    *_step("seqc/analysis/boundaries.py", "hooked", ('node("ge", now, const(period))', 'node("gt", now, const(period))')),
    *_step("seqc/frontend/boundaries.py", "hooked",
           ('node("where", count.due, reset, free)', 'node("where", count.due, free, reset)')),
    # ---- coupled and complex states
    *_block(COUPLED, "momentum", "chunkwise",
        ("_before(column[i], ONE if i == j else ZERO) if exclusive", "_before(column[i], ONE) if exclusive"),
        ("return where(last, 1.0 if m == i else 0.0, shift(x, ROW, -1))", "return where(last, 1.0, shift(x, ROW, -1))"),
        ("parts = [self.coefficients[i, m] * before(m, x)", "parts = [before(m, x)")),
    *_block(TURNING, "complex", "scan",
        ("return cos * u - sin * v, sin * u + cos * v", "return cos * u + sin * v, sin * u + cos * v"),
        ("_times(b, -sin)", "_times(b, sin)")),
    *_block(TURNING, "oscillators", "chunkwise",
        ("u.read(q * cos, over, exclusive) - v.read(q * sin, over, exclusive)",
         "u.read(q * cos, over, exclusive) + v.read(q * sin, over, exclusive)"),
        ("return cos * u - sin * v if i == 0 else sin * u + cos * v", "return cos * u - sin * v")),
    *_block("seqc/analysis/affine.py", "signed", "chunkwise",
        ("right = scaled(right, (const(-1.0),))", "right = scaled(right, (const(1.0),))")),
    # ---- simplification, and what functions mean
    *_step(LAWS, "decrees",
        ("law(X - (-Y), X + Y)", "law(X - (-Y), X - Y)"),
        ("law(-(X - Y), Y - X)", "law(-(X - Y), X - Y)")),
    *_step(LAWS, "smooth too",
        ('ONE - op("sigmoid", X)), op("logsigmoid", -X))', 'ONE - op("sigmoid", X)), op("logsigmoid", X))')),
    *_step(LAWS, "sums", ("        out = out / f\n", "        out = out * f\n")),
    *_step(CALLS, "sums",
        ("EPS_NORM = 1e-5", "EPS_NORM = 1e-3"),
        ("half = 0.5 * (dt * a)", "half = dt * a")),
    *_step(CALLS, "decrees", ('y.node.op in ("gt", "ge") else', 'y.node.op in ("gt",) else')),
    *_step("seqc/frontend/activations.py", "ties", ('apply("le", x, 0.0), 0.0, x', 'apply("lt", x, 0.0), 0.0, x')),
    # ---- plain torch: packs, directions, helpers
    *_step(PACKS, "cell",
        ('whole.add_(x) if kind == "-" else whole.copy_(x)', "whole.copy_(x)"),
        ("_turned(backward(*turned[0], *saved, *turned[1], needs=needs), {gradients}, reverse)",
         "_turned(backward(*turned[0], *saved, *turned[1], needs=needs), {gradients}, False)"),
        ("reverse), _turned(cotangents, _RESULTS, reverse)", "reverse), _turned(cotangents, _RESULTS, False)")),
    *_step(EAGER, "lagged", ("if by > 0:\n        return torch.cat([zeros", "if by >= 2:\n        return torch.cat([zeros")),
    *_block(EAGER, "element", "scan",
        ("step = i if not later else i + 1 if reverse else i - 1", "step = i"),
        ("missing = blocks * rows - x.shape[1]", "missing = 0")),
    *_block(EAGER, "near", "chunkwise",
        ("if block:\n        x = x.unflatten(dim", "if block > 4:\n        x = x.unflatten(dim")),
    *_block(EAGER, "decayed", "chunkwise",
        ("out_i.zero_() if exclusive else out_i.copy_(x_i)", "out_i.copy_(x_i)"),
        ("(2 * rows), 2, rows)).select(dim - 1, 1)", "(2 * rows), 2, rows)).select(dim - 1, 0)")),
    *_native("seqc/driver/compose/both_runs.py", "both",
        ("""f"reverse={'not ' if back else ''}reverse\"""", """f"reverse={'' if back else 'not '}reverse\"""")),
    *_step("seqc/driver/compose/both_runs.py", "both",
        ('f"d_{x} + {self.turned.format(self.again[x])} if', 'f"d_{x} + {self.again[x]} if')),
    # ---- convolutions along time
    *_step(TAPS, "taps",
        ("padded, w.flip(-1), dilation", "padded, w, dilation"),
        ("pad(x, (lags[-1] - lead, -lags[0]))", "pad(x, (lags[-1] - lead + 1, -lags[0] - 1))"),
        ("kernel[..., kept].flip(-1), [-lag", "kernel[..., kept], [-lag"),
        ("groups=groups).transpose(0, 1).flip(-1)", "groups=groups).transpose(0, 1)")),
    *_native(TAPS, "taps",
        ("gap = max(lead, min(reach, far))", "gap = lead"),
        ("bounds[own] + bounds[own + 1] - 1 - t if turned", "t + 0 * bounds[own] if turned")),
    # ---- native code
    *_native(RUNTIME, "cell", ("return bounds ? bounds[i] : i * T; }", "return bounds ? bounds[i] + (i > 0) : i * T; }")),
    *_native(PARTS, "sums",
        ("lanes() < splat(real(left)) ? x", "lanes() <= splat(real(left)) ? x"),
        ("INLINE vec seqc_max(vec a, vec b) { return ((a > b)", "INLINE vec seqc_max(vec a, vec b) { return ((a < b)")),
    *_native(MATH, "smooth",
        ("const vec positive = x < vec{} ? vec{} : x;", "const vec positive = x < vec{} ? x : vec{};"),
        ("return x >= vec{} ? r : e * r;", "return x >= vec{} ? e * r : r;"),
        ("return signed_as(e / (e + real(2)), x);", "return e / (e + real(2));"),
        ("return {n, r + r * r * q};", "return {n, r};")),
    *_native(MATH, "ties", ("a + real(0.693147180559945309417)", "a")),
    *_native("backends/native_cpu/backward.py", "cell",
        ("for (i64 slot = count - 1; slot >= 0; --slot)", "for (i64 slot = count - 1; slot > 0; --slot)")),
    # ---- Triton
    *_triton(DEVICE, "element", ("o_from = tl.arange(0, C) - BY", "o_from = tl.arange(0, C) + BY")),
    *_triton(DEVICE, "delta", ("(BLOCK - 1 if REVERSE else 0)\n", "(BLOCK - 1 if REVERSE else 1)\n")),
    *_triton(DEVICE, "decayed",
        ("later = tl.arange(0, 2)[None, :, None] == (0 if REVERSE", "later = tl.arange(0, 2)[None, :, None] == (1 if REVERSE"),
        ("added = run * before[:, None, None, :] if", "added = run + before[:, None, None, :] if"),
        ("later = (o_t // LEVEL)[:, None] > ", "later = (o_t // LEVEL)[:, None] >= ")),
    *_triton(DEVICE, "delta", ("b_X -= b_column[:, :, None] * b_row", "b_X += b_column[:, :, None] * b_row")),
    *_triton(DEVICE, "element", ("return a_now * a_past, a_now * b_past + b_now", "return a_now * a_past, b_past + b_now")),
    *_triton(MORE, "element", ("return offset + slope * start", "return offset + start")),
    *_triton(MORE, "maximum", ("tl.maximum(b_past + a_now, b_now, ", "tl.maximum(b_past, b_now, ")),
    *_triton(SMOOTH, "smooth",
        ("tl.where(x >= 0, 1.0, e) / (1.0 + e)", "tl.where(x >= 0, e, 1.0) / (1.0 + e)"),
        ("return tl.maximum(x, 0.0) + log1p_", "return tl.minimum(x, 0.0) + log1p_"),
        ("return tl.where(x < 0, -t, t)", "return t")),
    *_triton("backends/triton_gpu/device_sequences.py", "element", (".to(tl.int64) // BT + i_b\n", ".to(tl.int64) // BT\n")),
    *_triton("backends/triton_gpu/gradient_sums.py", "lagged", ("{offset} * STEP, cu_seqlens)", "{offset}, cu_seqlens)")),
    *_triton(PACKS, "lagged", ("same = (own[here] == own[there])", "same = (own[here] >= 0)")),
    # ---- what elements of a dim see of each other
    *_triton("backends/triton_gpu/padding.py", "neighbours",
        ('return n.number("by") < 0 if n.op == "shift" else', 'return True if n.op == "shift" else')),
    *_step("seqc/frontend/values.py", "neighbours",
        ('any(leaf.text("kind") in ("input", "param") for', 'all(leaf.text("kind") != "cot" for')),
    *_step("seqc/frontend/written_out.py", "transposed", ("else (stacked(dim, [*made])", "else (stacked(dim, [*made][::-1])")),
    *_step(CALLS, "transposed", ("Value(size(dim)) - 1.0", "Value(size(dim)) - 2.0")),
)

__all__ = ["MUTANTS", "Mutant"]
