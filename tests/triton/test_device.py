"""The tile primitives of emitted Triton kernels: values in Triton's interpreter against float64, and compilation.

Both run in a fresh process: the interpreter is chosen when Triton is first imported, and compiling needs it off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqc.backends.triton_gpu.device import HELPERS, helper_texts, needs
from seqc.backends.triton_gpu.device_more import MORE
from seqc.backends.triton_gpu.device_sequences import SEQUENCES
from tests.triton import processes

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
Array = np.ndarray[Any, Any]

KERNELS = """
@triton.jit
def offsets(RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr):
    if RANK == 1:
        return tl.arange(0, C)
    elif RANK == 2:
        return tl.arange(0, C)[:, None] * K + tl.arange(0, K)[None, :]
    else:
        o = tl.arange(0, C)[:, None, None] * K + tl.arange(0, K)[None, :, None]
        return o * L + tl.arange(0, L)[None, None, :]


@triton.jit
def cumsum_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
                  BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, segment_cumsum(tl.load(p_x + o), BLOCK, REVERSE, EXCLUSIVE))


@triton.jit
def column_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
                  BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, column_cumsum(tl.load(p_x + o), BLOCK, REVERSE, EXCLUSIVE))


@triton.jit
def decay_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
                 BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, column_decay(tl.load(p_x + o), BLOCK, REVERSE, EXCLUSIVE))


@triton.jit
def product_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
                   BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, product_cumsum(tl.load(p_x + o), BLOCK, REVERSE, EXCLUSIVE, tl.bfloat16))


@triton.jit
def product_decay_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr,
                         BLOCK: tl.constexpr, REVERSE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, product_decay(tl.load(p_x + o), BLOCK, REVERSE, EXCLUSIVE, tl.bfloat16))


@triton.jit
def shift_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr, BY: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, shift_rows(tl.load(p_x + o), BY))


@triton.jit
def column_shift_kernel(p_x, p_y, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, L: tl.constexpr, BY: tl.constexpr):
    o = offsets(RANK, C, K, L)
    tl.store(p_y + o, shift_in_columns(tl.load(p_x + o), BY))


@triton.jit
def pair_decay_kernel(p_x, p_y, C: tl.constexpr, EXCLUSIVE: tl.constexpr):
    x = tl.load(p_x + tl.arange(0, C) * C)
    tl.store(p_y + offsets(2, C, C, 1), pair_decay(x, EXCLUSIVE))


@triton.jit
def crossing_kernel(p_x, p_y, C: tl.constexpr, EXCLUSIVE: tl.constexpr):
    o = offsets(2, C, C, 1)
    tl.store(p_y + o, tl.broadcast_to(crossing_sums(tl.load(p_x + o), EXCLUSIVE)[:, None], (C, C)))


@triton.jit
def inverse_kernel(p_x, p_y, C: tl.constexpr, PRECISION: tl.constexpr):
    o = offsets(2, C, C, 1)
    tl.store(p_y + o, unit_lower_inverse(tl.load(p_x + o), C, PRECISION))


@triton.jit
def scan_kernel(p_a, p_b, p_d, p_h, RANK: tl.constexpr, C: tl.constexpr, K: tl.constexpr, REVERSE: tl.constexpr):
    o = offsets(RANK, C, K, 1)
    d, h = affine_scan(tl.load(p_a + o), tl.load(p_b + o), REVERSE)
    tl.store(p_d + o, d)
    tl.store(p_h + o, h)


@triton.jit
def blocks_kernel(p_entries, p_cu_seqlens, p_b, p_n, B, T, COUNT, BT: tl.constexpr):
    for i in range(COUNT):
        i_b, i_n = block_of(p_cu_seqlens, tl.load(p_entries + i), B, T, BT)
        tl.store(p_b + i, i_b)
        tl.store(p_n + i, i_n)


@triton.jit
def elementwise_kernel(p_x, p_y, N: tl.constexpr, FUNCTION: tl.constexpr):
    o = tl.arange(0, N)
    x = tl.load(p_x + o)
    if FUNCTION == "log1p":
        y = log1p(x)
    elif FUNCTION == "expm1":
        y = expm1(x)
    elif FUNCTION == "sigmoid":
        y = sigmoid(x)
    elif FUNCTION == "logsigmoid":
        y = logsigmoid(x)
    elif FUNCTION == "softplus":
        y = softplus(x)
    elif FUNCTION == "tanh":
        y = tanh(x)
    elif FUNCTION == "atan":
        y = atan(x)
    elif FUNCTION == "nearest":
        y = nearest(x)
    else:
        y = silu(x)
    tl.store(p_y + o, y)
"""

INTERPRET = """
import pickle, sys
import numpy as np
import torch
import kernels_under_test as m
from tests.triton import interpreter

with open(sys.argv[1], "rb") as file:
    calls = pickle.load(file)


def run(kernel, arrays, constants, outs):
    tensors = [torch.from_numpy(a) for a in arrays]
    written = [torch.full_like(tensors[0], 7.0) for _ in range(outs)]
    getattr(m, kernel)[(1,)](*tensors, *written, **constants)
    return [w.numpy() for w in written]


interpreter.mend()
results = [run(*call) for call in calls]
interpreter.choose()  # as the other tests have it: to the bit the same
for call, result in zip(calls, results):
    assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(run(*call), result, strict=True)), call[0]
with open(sys.argv[2], "wb") as file:
    pickle.dump(results, file)
"""

COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import kernels_under_test as m


def check(kernel, pointers, constants):
    signature = {name: "*fp32" for name in pointers} | {name: "constexpr" for name in constants}
    source = ASTSource(fn=getattr(m, kernel), signature=signature, constexprs=constants)
    triton.compile(source, target=target, options={"num_warps": 4})


xy = ["p_x", "p_y"]
for backend, arch, width, precision in TARGETS:
    print(backend, arch, file=sys.stderr)
    target = GPUTarget(backend, arch, width)
    check("inverse_kernel", xy, dict(C=64, PRECISION=precision))
    for rank, exclusive, reverse in [(1, True, True), (2, True, False), (2, False, True), (3, True, False)]:
        for kernel in ("column_kernel", "decay_kernel", "product_kernel", "product_decay_kernel"):
            check(kernel, xy, dict(RANK=2, C=64, K=32, L=1, BLOCK=16, REVERSE=reverse, EXCLUSIVE=exclusive))
        check("cumsum_kernel", xy, dict(RANK=rank, C=64, K=32, L=4, BLOCK=16, REVERSE=reverse, EXCLUSIVE=exclusive))
    for exclusive in (True, False):
        check("pair_decay_kernel", xy, dict(C=64, EXCLUSIVE=exclusive))
        check("crossing_kernel", xy, dict(C=64, EXCLUSIVE=exclusive))
    check("scan_kernel", ["p_a", "p_b", "p_d", "p_h"], dict(RANK=2, C=64, K=32, REVERSE=True))
    for function in ["log1p", "expm1", "sigmoid", "logsigmoid", "softplus", "tanh", "silu", "atan", "nearest"]:
        check("elementwise_kernel", xy, dict(N=128, FUNCTION=function))
"""


def _module(folder: Path) -> None:
    more = [MORE["pair_decay"], MORE["crossing_sums"]]
    texts = ["import triton\nimport triton.language as tl", *helper_texts(HELPERS), *more, *SEQUENCES.values(), KERNELS.strip()]
    (folder / "kernels_under_test.py").write_text("\n\n\n".join(texts) + "\n")


def _interpret(folder: Path, calls: list[tuple[str, list[Array], dict[str, Any], int]]) -> list[list[Array]]:
    """Run (kernel, input arrays, constants, number of outputs) in the interpreter; the outputs of each."""
    import pickle

    _module(folder)
    (folder / "run.py").write_text(INTERPRET)
    with open(folder / "calls.pkl", "wb") as file:
        pickle.dump(calls, file)
    done = processes.run(["-W", "error::RuntimeWarning", "run.py", "calls.pkl", "results.pkl"], folder=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    with open(folder / "results.pkl", "rb") as file:
        results: list[list[Array]] = pickle.load(file)
    return results


def _running_sum(x: Array, block: int, reverse: bool, exclusive: bool) -> Array:
    out = np.zeros_like(x, dtype=np.float64)
    for t in range(x.shape[0]):
        start = t - t % block
        lo, hi = (t, start + block) if reverse else (start, t + 1)
        if exclusive:
            lo, hi = (lo + 1, hi) if reverse else (lo, hi - 1)
        out[t] = x[lo:hi].astype(np.float64).sum(axis=0)
    return out


def _call(kernel: str, x: Array, block: int, reverse: bool, exclusive: bool) -> tuple[str, list[Array], dict[str, Any], int]:
    """What `_interpret` takes for a kernel of running sums of x."""
    k, length = (*x.shape[1:], 1, 1)[:2]
    constants = {"RANK": x.ndim, "C": x.shape[0], "K": k, "L": length}
    return kernel, [x], constants | {"BLOCK": block, "REVERSE": reverse, "EXCLUSIVE": exclusive}, 1


def test_segment_cumsum(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    calls, wants = [], []
    for shape in [(16,), (128,), (64, 32), (16, 1), (32, 8, 4)]:
        for block in {16, 4, shape[0]}:
            for reverse in (False, True):
                for exclusive in (False, True):
                    x = -rng.uniform(0, 3, shape).astype(np.float32)
                    x[rng.uniform(size=shape) < 0.05] = -np.inf
                    for kernel in ("cumsum_kernel", "column_kernel")[: len(shape)]:
                        calls.append(_call(kernel, x, block, reverse, exclusive))
                        wants.append(_running_sum(x, block, reverse, exclusive))
    for (got,), want in zip(_interpret(tmp_path, calls), wants, strict=True):
        np.testing.assert_allclose(got, want, rtol=64 * 2.0**-24)


def test_sums_as_products(tmp_path: Path) -> None:
    """Of values of all sizes and signs, in three parts that lose no bit: as exact as sums in fp32. What is no finite number
    makes NaN of the sums that it is in, and of no others."""
    rng = np.random.default_rng(5)
    calls, wants = [], []
    for shape, block in [((64, 32), 64), ((64, 16), 8), ((16, 16), 4), ((16, 8), 16), ((32, 8, 4), 2)]:
        for reverse, exclusive in ((False, False), (False, True), (True, False), (True, True)):
            x = (rng.normal(size=shape) * np.exp(rng.uniform(-9, 9, shape))).astype(np.float32)
            x[shape[0] // 3, 0], x[shape[0] // 2, 1] = np.nan, np.inf
            calls.append(_call("product_kernel", x, block, reverse, exclusive))
            wants.append((_running_sum(x, block, reverse, exclusive), _running_sum(np.abs(x), block, reverse, exclusive)))
    for (got,), (want, size) in zip(_interpret(tmp_path, calls), wants, strict=True):
        assert np.array_equal(np.isfinite(got), np.isfinite(want))
        fine = np.isfinite(want)
        assert np.all(np.abs(got[fine] - want[fine]) <= 64 * 2.0**-24 * size[fine])


@pytest.mark.parametrize("function", ["decay_kernel", "product_decay_kernel"])
def test_column_decay(tmp_path: Path, function: str) -> None:
    """Products of exponentials over segments: flat and steep decays, resets, and one value that is no number, which spoils the
    products that hold it and no others."""
    rng = np.random.default_rng(4)
    calls, wants = [], []
    for shape, block in [((64, 32), 64), ((64, 32), 8), ((16, 1), 16), ((32, 8, 4), 2), ((16, 16), 1)]:
        for reverse in (False, True):
            for exclusive in (False, True):
                x = -np.exp(rng.uniform(-12, 4, shape)).astype(np.float32)
                x[rng.uniform(size=shape) < 0.05] = -np.inf
                x[shape[0] // 3, 0] = np.nan
                calls.append(_call(function, x, block, reverse, exclusive))
                wants.append(np.exp(_running_sum(x, block, reverse, exclusive)))
    for (got,), want in zip(_interpret(tmp_path, calls), wants, strict=True):
        np.testing.assert_allclose(got, want, rtol=(1024 if "product" in function else 256) * 2.0**-24, atol=1e-37)
        assert not np.any(got[want == 0.0])


def test_decays_between_steps(tmp_path: Path) -> None:
    """As exact as each sum of its own, whatever stands before it: resets, steep steps, and mild ones behind them."""
    rng = np.random.default_rng(5)
    calls, wants = [], []
    for side in (16, 64):
        for steep in (1.0, 50.0, 3e4):
            x = -rng.uniform(0, 1, side) * rng.choice([1e-4, 1.0, steep], side)
            x[rng.uniform(size=side) < 0.1] = -np.inf
            x = x.astype(np.float32)
            for exclusive in (False, True):
                calls.append(("pair_decay_kernel", [np.repeat(x[:, None], side, 1)], {"C": side, "EXCLUSIVE": exclusive}, 1))
                spans = [[x[s + 1 : t + 1 - exclusive].astype(np.float64).sum() if t > s else 0.0 for s in range(side)]
                         for t in range(side)]
                wants.append(np.array(spans))
    for (got,), span in zip(_interpret(tmp_path, calls), wants, strict=True):
        want = np.exp(span)
        assert np.all(np.abs(got - want) <= want * (4 + np.abs(np.maximum(span, -200))) * 2.0**-23 + 2.0**-126)


def test_sums_over_the_pairs_to_either_side_of_a_step(tmp_path: Path) -> None:
    """What is no number spoils the steps between its two, and no other; pairs of the other order count nowhere."""
    rng = np.random.default_rng(6)
    calls, wants = [], []
    for side in (16, 64):
        x = rng.normal(size=(side, side)).astype(np.float32)
        spoilt = x.copy()
        spoilt[11, 4], spoilt[2, 9] = np.nan, np.nan
        for given in (x, spoilt):
            for exclusive in (False, True):
                calls.append(("crossing_kernel", [given], {"C": side, "EXCLUSIVE": exclusive}, 1))
                wants.append([given[i + exclusive :, :i].astype(np.float64).sum() for i in range(side)])
    for (got,), want in zip(_interpret(tmp_path, calls), wants, strict=True):
        np.testing.assert_allclose(got[:, 0], want, rtol=1e-5, atol=1e-4)


def test_entries_of_a_pack_tell_their_blocks(tmp_path: Path) -> None:
    """Packs of up to 5,000 sequences, many of them without steps: each block stands at one entry, and is found there; at an
    entry without a block, what is found is past the end of its sequence."""
    rng = np.random.default_rng(3)
    calls, wants = [], []
    for number in (1, 2, 32, 33, 1024, 1025, 5000, *map(int, rng.integers(2, 2000, 5))):
        rows = int(rng.choice([16, 32, 64]))
        steps = rng.integers(0, 4 * rows, number) * (rng.random(number) < rng.choice([0.02, 0.5]))
        steps[rng.integers(number)] = 3 * rows + 1
        bounds = np.concatenate([[0], np.cumsum(steps)])
        begins = bounds[:-1] // rows + np.arange(number)
        blocks = {begin + n: (i, n) for i, begin in enumerate(begins) for n in range(-(-steps[i] // rows))}
        total = bounds[-1] // rows + number
        assert len(blocks) == sum(-(-steps // rows)) and max(blocks) < total
        idle = sorted({*range(total)} - {*blocks})
        asked = np.array([*rng.permutation(list(blocks))[:6], max(blocks), *rng.permutation(idle)[:3]], dtype=np.int64)
        constants = {"B": number, "T": int(bounds[-1]), "COUNT": len(asked), "BT": rows}
        calls.append(("blocks_kernel", [asked, bounds.astype(rng.choice(["int32", "int64"]))], constants, 2))
        wants.append((steps, rows, [blocks.get(entry) for entry in asked]))
    for (sequences, numbers), (steps, rows, blocks) in zip(_interpret(tmp_path, calls), wants, strict=True):
        for i, n, want in zip(sequences, numbers, blocks, strict=True):
            assert (i, n) == want if want else n * rows >= steps[i]


def test_shift_rows(tmp_path: Path) -> None:
    calls, wants = [], []
    for shape in [(16,), (64, 8), (16, 4, 2)]:
        for by in (1, -1, 3, -15, 0, 16):
            x = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
            x[::5] = -np.inf
            k, length = (*shape[1:], 1, 1)[:2]
            want = np.zeros_like(x)
            if by >= 0:
                want[by:] = x[: shape[0] - by]
            else:
                want[:by] = x[-by:]
            for kernel in ("shift_kernel", "column_shift_kernel")[: 1 + (abs(by) == 1)]:
                calls.append((kernel, [x], {"RANK": len(shape), "C": shape[0], "K": k, "L": length, "BY": by}, 1))
                wants.append(want)
    for (got,), want in zip(_interpret(tmp_path, calls), wants, strict=True):
        np.testing.assert_array_equal(got, want)


def _inverse_summed_badly(m: Array) -> Array:
    """What `unit_lower_inverse` computes, in fp32, the products of every sum from the largest to the least: those of one sign
    add up before the others take anything away, so that roundings are as large as an order of sums can make them."""

    def dot(a: Array, b: Array) -> Array:
        products = -np.sort(-(a[:, :, None] * b[None]), axis=1)
        return np.asarray(np.cumsum(products, axis=1, dtype=np.float32)[:, -1])

    if len(m) > 16:
        half = len(m) // 2
        a, d = _inverse_summed_badly(m[:half, :half]), _inverse_summed_badly(m[half:, half:])
        return np.block([[a, np.zeros_like(a)], [-dot(d, dot(m[half:, :half], a)), d]])
    x = np.eye(16, dtype=np.float32)
    for i in range(15):
        x = x - m[:, i, None] * x[i]
    return x


def test_unit_lower_inverse(tmp_path: Path) -> None:
    """Repeated unit keys with beta = 2 are the hard case: the inverse alternates between 2 and -2 and never decays.

    Two bounds, neither of which knows in which order a library, or a GPU, sums products. Of each element, substitution in unit
    roundoff u guarantees n u |X| |I + M| |X|; joined blocks stay below an eighteenth of that in the worst order. In the norm:
    four times the error of the same steps, summed in that order.
    """
    rng = np.random.default_rng(2)
    cases = []
    for side in (16, 32, 64, 128):
        keys = rng.normal(size=(side, 8))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        near = np.ones((side, 8)) / np.sqrt(8) + 0.01 * keys
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        ones = np.ones((side, 1))
        for rows, beta in [(ones, 2.0), (ones, 1.9), (near, 2.0), (near, 1.7), (keys, 2.0), (keys, 0.0)]:
            cases.append(np.tril(beta * rows @ rows.T, -1).astype(np.float32))
    calls = [("inverse_kernel", [m], {"C": len(m), "PRECISION": "tf32x3"}, 1) for m in cases]
    for (got,), m in zip(_interpret(tmp_path, calls), cases, strict=True):
        exact = np.tril(np.linalg.inv(np.eye(len(m)) + m.astype(np.float64)))
        bound = len(m) * 2.0**-24 * np.abs(exact) @ (np.abs(m) + np.eye(len(m))) @ np.abs(exact)
        assert np.all(np.abs(got - exact) <= bound)
        assert np.abs(got - exact).max() <= 4 * np.abs(_inverse_summed_badly(m) - exact).max()
        assert np.array_equal(got, np.tril(got)) and np.all(np.diag(got) == 1)


def test_affine_scan(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    calls, wants = [], []
    for shape in [(16,), (16, 4)]:
        for reverse in (False, True):
            a = rng.uniform(-1, 1, shape).astype(np.float32)
            a[5] = 0
            b = rng.normal(size=shape).astype(np.float32)
            constants = {"RANK": len(shape), "C": shape[0], "K": (*shape[1:], 1)[0], "REVERSE": reverse}
            calls.append(("scan_kernel", [a, b], constants, 2))
            h, d = np.zeros(shape[1:]), np.ones(shape[1:])
            want_d, want_h = np.zeros(shape), np.zeros(shape)
            for t in reversed(range(16)) if reverse else range(16):
                h, d = a[t] * h + b[t], a[t] * d
                want_d[t], want_h[t] = d, h
            wants.append((want_d, want_h))
    for got, want in zip(_interpret(tmp_path, calls), wants, strict=True):
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=16 * 2.0**-24 * np.abs(w).max())


def test_elementwise(tmp_path: Path) -> None:
    """Ten units in the last place, relative, wherever the value is a normal fp32 number; the ends exactly."""
    magnitudes = np.concatenate([np.geomspace(1e-30, 100, 505), [0.5, 1.0, np.inf, 1e30, 104.0, 1.0e38, 0.0]])
    x = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    wide = x.astype(np.float64)
    e = np.exp(-np.abs(wide))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        sigmoid = np.where(wide >= 0, 1, e) / (1 + e)
        wants = {
            "log1p": np.log1p(np.where(wide >= -1, wide, 0)),
            "expm1": np.expm1(np.where(wide <= 88, wide, 0)),
            "sigmoid": sigmoid,
            "logsigmoid": np.minimum(wide, 0) - np.log1p(e),
            "softplus": np.maximum(wide, 0) + np.log1p(e),
            "tanh": np.tanh(wide),
            "atan": np.arctan(wide),
            "nearest": np.round(wide),
            "silu": np.where(wide == -np.inf, 0, wide * sigmoid),
        }
    inputs = dict.fromkeys(wants, x)
    inputs["log1p"] = np.where(wide >= -1, x, 0).astype(np.float32)
    inputs["log1p"][inputs["log1p"] == -1] = 0
    wants["log1p"] = np.log1p(inputs["log1p"].astype(np.float64))
    inputs["expm1"] = np.where(wide <= 88, x, 0).astype(np.float32)
    calls = [("elementwise_kernel", [inputs[name]], {"N": 1024, "FUNCTION": name}, 1) for name in wants]
    for (got,), (name, want) in zip(_interpret(tmp_path, calls), wants.items(), strict=True):
        np.testing.assert_allclose(got, want, rtol=10 * 2.0**-24, atol=2.0**-126, err_msg=name)


PRECISION = {"cuda": "tf32x3", "hip": "ieee"}  # three products in tf32 make one in fp32; AMD has fp32 and no tf32x3
KINDS = [("cuda", 80, 32), ("cuda", 90, 32), ("cuda", 100, 32), ("hip", "gfx942", 64)]


@pytest.mark.parametrize("kinds", [KINDS[1:2], pytest.param(KINDS[:1] + KINDS[2:], marks=pytest.mark.long)])
def test_compiles(tmp_path: Path, kinds: list[tuple[str, int | str, int]]) -> None:
    """For kinds of targets; the last one that the process names is the one that failed."""
    _module(tmp_path)
    targets = [(*kind, PRECISION[kind[0]]) for kind in kinds]
    (tmp_path / "compile.py").write_text(f"TARGETS = {targets!r}\n{COMPILE}")
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "compile.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def test_table() -> None:
    names = list(HELPERS)
    for place, name in enumerate(names):
        assert HELPERS[name].startswith("@triton.jit\ndef ") and f"def {name}(" in HELPERS[name]
        callers_after = [other for other in needs(name) if names.index(other) > place]
        assert not callers_after, f"{name} is printed before {callers_after}"
        assert "libdevice" not in HELPERS[name]
    assert helper_texts(["softplus"]) == (HELPERS["log1p_of_fraction"], HELPERS["softplus"])
    assert helper_texts(["segment_cumsum", "shift_rows"]) == helper_texts(["segment_cumsum"])
    with pytest.raises(KeyError, match="nothing"):
        helper_texts(["nothing"])
