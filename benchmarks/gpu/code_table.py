"""`python -m benchmarks.gpu.code_table`: machine code of our kernels and of others', and how its model meets published times.

In: the committed verdicts of the toolchain, the committed table of `benchmarks.gpu.peer_code`, published times. Out:
`docs/benchmarks/machine-code.md`. It needs no GPU; with `--refresh` the toolchain is asked first for what the verdicts lack.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.gpu import scan_bounds
from seqc.backends.triton_gpu.report.figures import committed
from seqc.backends.triton_gpu.report.peer_kernels import FLOAT32, PeerCall, peer_call, table
from seqc.backends.triton_gpu.report.peers import PEERS, Peer
from seqc.backends.triton_gpu.tuning.targets import Target, target_named
from seqc.backends.triton_gpu.tuning.toolchain import refresh
from seqc.backends.triton_gpu.tuning.verdicts import TABLE, VerdictTable
from seqc.driver.explain.gpu_costs import Shape, costs
from seqc.frontend.elaborate import load
from seqc.frontend.sources import shipped

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "machine-code.md"
SPECS = ("gla", "kda", "gated_delta_rule", "delta_rule", "simple_gla", "mamba2")
STATES = {"N": 128}  # of a channel in Mamba-2, whatever a head's width: other recurrences here have no such dim
WALKS = ("mamba", "longhorn", "rwkv4", "hgrn", "s5", "lru", "lstm", "gru")  # scans and cells: no kernels of others beside them
SHAPES = (Shape(1, 8192, 96, 128), Shape(4, 2048, 16, 128), Shape(8, 2048, 32, 256), Shape(8, 1024, 8, 64))
HOPPER = target_named("sm_90")
H20 = replace(HOPPER, units=78, bytes_per_ns=4000, clock_mhz=1980, matrix_gops={"bf16": 148_000})
DEVICES = {"H100": HOPPER, "H800": HOPPER, "H200": replace(HOPPER, bytes_per_ns=4800), "H20": H20}
COUNTS = ("all", "matrix", "load", "store", "async", "shared", "shuffle", "barrier", "special")
HEAD = ("instructions", "MMA", "LDG", "STG", "async", "LDS+STS", "SHFL", "BAR", "MUFU")
PREFACE = """# Machine code, and the model that reads it

Written by `python -m benchmarks.gpu.code_table`; nothing here ran on a GPU. The kernels of flash-linear-attention and mamba-ssm
were compiled by `python -m benchmarks.gpu.peer_code` with their own launches, at up to {tried} of the configurations that their
tuning lists; the one of least modelled time is shown. Counts are instructions of the text, not executions. MMA: products of
tensor cores; async: copies that are sent ahead. Times of ours are from machine code, but for the kernels that a shape names.
Beside theirs, ours are called as they are: with log decays in float32, all else in bf16. Verdicts of another text than is
emitted today: {stale}.
"""


def fitted() -> Iterator[tuple[Peer, PeerCall, bool, float, float]]:
    """Every published time for which there is machine code of the same kernels: with published and modelled milliseconds."""
    for one in PEERS:
        spec = f"{one.spec}:{one.called}" if one.called else one.spec
        call = peer_call(spec, one.shape, DEVICES[one.device]) if one.device in DEVICES else None
        if call is None or not call.system.startswith(one.system):
            continue
        yield one, call, False, one.forward, call.nanoseconds(False) / 1e6
        if one.training is not None:
            yield one, call, True, one.training, call.nanoseconds(True) / 1e6


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; all columns but the first two are numbers."""
    names = list(head)
    rule = ["---" if i < 2 else "--:" for i in range(len(names))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (names, rule, *rows))


def fit_text() -> str:
    """Modelled beside published times, and by how much they differ."""
    rows, logs = [], []
    for one, _, backward, published, modelled in fitted():
        what = "forward and backward" if backward else "forward"
        at = f"{one.shape}, {one.device}, {what}"
        rows.append((one.spec, at, f"{published:.3f}", f"{modelled:.3f}", f"{modelled / published:.2f}"))
        logs.append(log(modelled / published))
    mean, off = exp(fmean(logs)), exp(fmean(abs(x) for x in logs))
    told = f"Modelled over published is {mean:.2f} in the geometric mean; a time is off by a factor of {off:.2f} in the mean."
    return f"{markdown(('recurrence', 'shape, device', 'published ms', 'modelled ms', 'ratio'), rows)}\n\n{told}"


def figures_of(counts: Mapping[str, int]) -> list[int]:
    """The counts of a row."""
    return [counts.get(name, 0) for name in COUNTS]


def theirs(target: Target) -> Iterator[list[object]]:
    """A row for each of others' kernels, once for each size of a head."""
    seen = set()
    for key, row in table().items():
        name, spec, *shape = key.split(" ")
        if name != target.name:
            continue
        for one in row["kernels"]:
            blocks = ", ".join(f"{k} {n}" for k, n in one["blocks"].items())
            config = f"{blocks}, {one['warps']} warps, {one['stages']} stages"
            told: list[object] = [f"{spec} {shape[-1]}", f"{one['kernel']}: {config}"]
            told += [one["registers"], one["spills"], round(one["shared"] / 1024), *figures_of(one["counts"])]
            if str(told) not in seen:
                seen.add(str(told))
                yield [*told, row["versions"]["triton"]]


def ours(target: Target, specs: Iterable[str]) -> Iterator[list[object]]:
    """A row for each of our kernels that a usual shape launches and the toolchain has spoken of."""
    seen = set()
    for spec in specs:
        for one in costs(load(shipped()[spec]), target.name, SHAPES, STATES if spec in SPECS else {}):
            for kernel in (*one.forward, *one.training):
                said = kernel.verdict
                if said is None or said.error is not None:
                    continue
                told: list[object] = [f"{spec} {str(one.shape).split(' ')[-1]}", f"{kernel.kernel}: {kernel.tiles}"]
                told += [said.registers, said.spills, round(said.shared / 1024), *figures_of(dict(said.counts))]
                if str(told) not in seen:
                    seen.add(str(told))
                    yield [*told, said.toolchain.removeprefix("triton ")]


def outdated(target: Target, specs: Iterable[str]) -> str:
    """The kernels of usual shapes of which the toolchain has spoken in another text alone, or that there are none."""
    found: dict[str, None] = {}
    for spec in specs:
        for one in costs(load(shipped()[spec]), target.name, SHAPES, STATES if spec in SPECS else {}):
            for kernel in (*one.forward, *one.training):
                if kernel.outdated:
                    found[f"{kernel.kernel} {one.shape.split(' ')[-1]}"] = None
    return ", ".join(found) or "none"


def side_by_side(target: Target, specs: Iterable[str]) -> Iterator[list[object]]:
    """Ours and theirs at each shape, by the one model: milliseconds, and megabytes that are kept for backward. Kernels whose
    machine code is not known are named with the shape."""
    for spec in specs:
        for mine in costs(load(shipped()[spec]), target.name, SHAPES, STATES, wide=FLOAT32):
            call = peer_call(spec, mine.shape, target)
            every, known = (*mine.forward, *mine.training), committed()
            narrow = dict.fromkeys(mine.short(one) for one in every if one.code is not None and one.job.key not in known)
            told = ((", by the tile model: ", mine.by_tile_model()), (", decays in bf16: ", narrow))
            notes = (words + ", ".join(names) for words, names in told if names)
            row: list[object] = [spec, mine.shape + "".join(notes)]
            for backward, kernels in ((False, mine.forward), (True, mine.training)):
                own = mine.nanoseconds(kernels) / 1e6
                other = None if call is None else call.nanoseconds(backward) / 1e6
                row += [f"{own:.2f}", *(("", "") if other is None else (f"{other:.2f}", f"{own / other:.2f}"))]
            yield [*row, f"{mine.saved / 1e6:.0f}", "" if call is None else f"{call.saved / 1e6:.0f}"]


def page(target: Target) -> str:
    """The whole page."""
    tried = max((one["tried"] for row in table().values() for one in row["kernels"]), default=0)
    head = ("recurrence", "kernel", "registers", "spilled", "KiB", *HEAD, "Triton")
    both = ("recurrence", "shape", "forward ms", "theirs", "ratio", "with backward ms", "theirs", "ratio", "saved MB", "theirs")
    stale = outdated(target, (*SPECS, *WALKS))
    parts = [
        PREFACE.format(tried=tried, stale=stale), "## Theirs: modelled and published\n", fit_text(),
        f"\n## Ours and theirs by the same model, {target.machine}\n", markdown(both, side_by_side(target, SPECS)),
        f"\n## Scans beside the least that they could take, {target.machine}\n",
        markdown(scan_bounds.HEAD, scan_bounds.rows(target)),
        f"\n## Theirs on {target.name}\n", markdown(head, theirs(target)),
        f"\n## Ours on {target.name}\n", markdown(head, ours(target, (*SPECS, *WALKS))),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.code_table", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--target", default="sm_90")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--fit", action="store_true", help="print modelled and published times, and write nothing")
    parser.add_argument("--refresh", action="store_true", help="ask the toolchain for what the verdicts lack")
    args = parser.parse_args(arguments)
    if args.fit:
        print(fit_text())
        return 0
    if args.refresh:
        from seqc.cli.main import main as seqc

        for width in (64, 128, 256):
            given: list[Any] = ["--target", args.target, "--dim", f"K={width}", "--dim", f"V={width}", "--dim", f"P={width}"]
            given += [word for name, size in STATES.items() for word in ("--dim", f"{name}={size}")]
            seqc(["tiles", *SPECS, *given, "--refresh", "--prune"])
        committed.cache_clear()
        told = chain(*(costs(load(shipped()[spec]), args.target, SHAPES, STATES, wide=FLOAT32) for spec in SPECS))
        known = VerdictTable.load()
        more = refresh([one.job for found in told for one in (*found.forward, *found.training)], known)
        VerdictTable.change(TABLE, ((key, more[key]) for key in more if key not in known))
        committed.cache_clear()
    args.out.write_text(page(target_named(args.target)), encoding="utf-8")
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
