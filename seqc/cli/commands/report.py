"""`seqc report`: what a spec's kernels cost on a GPU that need not be there. In: specs, a target, shapes. Out: a table: every
kernel's registers, spills, shared memory, occupancy, matrix instructions, bytes, operations, modelled time; or JSON."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from seqc.cli.commands.options import SPEC, add_json, count, dim, spec_path

if TYPE_CHECKING:
    from seqc.driver.explain.gpu_costs import Costs, KernelCost, Shape

HEAD = ("kernel", "tiles", "regs", "spill", "KiB", "occ %", "mma", "MB", "Gop", "model us", "mem us", "math us", "bound by")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    parser.add_argument("--target", default="sm_90", metavar="NAME", help="the GPU (default: sm_90)")
    parser.add_argument("--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE",
                        help="the size of a dim, whatever the shape says; one that a spec lacks is passed over")
    names = (("batch", "sequences"), ("steps", "steps of a sequence"), ("heads", "heads"), ("width", "size of a head"))
    for name, help in names:
        parser.add_argument(f"--{name}", type=count, metavar="N", help=f"{help} (default: five usual shapes)")
    parser.add_argument("--peers", action="store_true", help="print others' kernels beside a shape, modelled alike")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Report every spec at every shape."""
    from seqc.backends.triton_gpu.report.peer_kernels import FLOAT32
    from seqc.cli.commands.tiles import known_targets
    from seqc.driver.explain.gpu_costs import costs
    from seqc.frontend.elaborate import load

    (target,) = known_targets([args.target])
    given, dims = shapes(args), dict(args.dims)
    wide = FLOAT32 if args.peers else ()
    found = [one for path in args.specs for one in costs(load(path), target, given, dims, wide=wide)]
    if args.json:
        print(json.dumps([one.data() for one in found], indent=2))
    else:
        print("\n\n".join(text(one, args.peers) for one in found))
    return 0


def shapes(args: argparse.Namespace) -> tuple[Shape, ...]:
    """The shape that was asked for, or the usual ones."""
    from seqc.driver.explain.gpu_costs import SHAPES, Shape

    given = (args.batch, args.steps, args.heads, args.width)
    if all(n is None for n in given):
        return SHAPES
    return (Shape(args.batch or 8, args.steps or 2048, args.heads or 16, args.width or 128),)


def text(costs: Costs, peers: bool = False) -> str:
    """The report of one shape as a table, with notes below it. peers: what was published of others' kernels."""
    from seqc.backends.triton_gpu.report.peers import beside
    from seqc.driver.explain.phrases import wrapped

    rows = "step by step" if costs.rows == 1 else f"{costs.rows} rows a block"
    kinds = ", ".join(["bf16", *(f"{name} in fp32" for name in costs.wide)])
    lines = [f"{costs.program} on {costs.target}, {costs.shape}, {kinds}, {rows}"]
    notes: list[str] = []
    table: list[tuple[str, ...]] = [HEAD]
    parts = (("forward", costs.forward), ("forward and backward", costs.training))
    for title, listed in parts:
        table += [cells(one, costs) for one in listed]
        count = costs.launches(listed)
        total = f"{costs.nanoseconds(listed) / 1000:.0f}"
        table.append((f"= {title}, {count} launch{'' if count == 1 else 'es'}", *[""] * 8, total, "", "", ""))
    widths = [max(len(row[i]) for row in table if i or not row[0].startswith("=")) for i in range(len(HEAD))]
    for row in table:
        if row[0].startswith("="):
            until = sum(widths[:9]) + 18
            lines.append(f"  {row[0]:<{until}}{row[9]:>{widths[9]}}")
        else:
            left, right = 2, len(HEAD) - 1
            at = list(zip(range(len(HEAD)), row, widths, strict=True))
            placed = [x.ljust(w) if i < left or i == right else x.rjust(w) for i, x, w in at]
            lines.append(("  " + "  ".join(placed)).rstrip())
    lines.append(f"  saved for backward: {costs.saved / 1e6:.0f} MB of states, beside {costs.inputs / 1e6:.0f} MB of inputs")
    if peers:
        lines += theirs(costs)
        told = [one.words for one in beside(costs.program, costs.shape)]
        notes += [f"published: {words}" for words in told or ["nothing at this shape"]]
    kernels = list({one.kernel: one for one in (*costs.forward, *costs.training)}.values())
    outdated = [costs.short(one) for one in kernels if one.outdated]
    if outdated:
        notes.append(f"the verdicts of {', '.join(outdated)} are of another text than is emitted today")
    untold = [costs.short(one) for one in kernels if one.verdict is None]
    if untold:
        dims = "".join(f" --dim {name}={size}" for name, size in costs.fixed.items())
        notes.append(f"no verdict recorded for {', '.join(untold)}: occupancy is the model's; "
                     f"`seqc tiles SPEC --target {costs.target}{dims} --refresh` asks the toolchain")
    for one in kernels:
        if one.spills:
            notes.append(f"{costs.short(one)} spills: {one.spills}")
        if one.verdict is not None and one.verdict.error is not None:
            notes.append(f"{costs.short(one)}: {one.verdict.toolchain} refuses it: {one.verdict.error}")
    return "\n".join([*lines, *(line for note in notes for line in wrapped(note, 2))])


def theirs(costs: Costs) -> list[str]:
    """Others' kernels at the same shape, by the same model: a table, and what they keep for backward."""
    from seqc.backends.triton_gpu.report.peer_kernels import peer_call
    from seqc.backends.triton_gpu.tuning.targets import target_named

    call = peer_call(costs.program, costs.shape, target_named(costs.target))
    if call is None:
        return []
    head = ("kernel", "tiles", "regs", "spill", "KiB", "programs a unit", "MB", "model us", "mem us", "bound by")
    rows: list[tuple[str, ...]] = [head]
    ends: dict[int, str] = {}
    for backward, title in ((False, "forward"), (True, "forward and backward")):
        for one in call.kernels:
            if one.backward == backward and one.spent is not None:
                d, told = one.data, one.spent
                tiles = ", ".join([*(f"{k} {n}" for k, n in d["blocks"].items()), f"{d['warps']} warps, {d['stages']} stages"])
                rows.append((
                    one.name, tiles, *(str(d[x]) for x in ("registers", "spills")), f"{d['shared'] / 1024:.0f}",
                    str(told.resident), f"{d['bytes'] / 1e6:.0f}", f"{one.nanoseconds / 1000:.0f}",
                    f"{told.memory / 1000:.0f}", told.bound,
                ))
        count = call.launches(backward)
        ends[len(rows)] = f"  = {title}, {count} launches, torch's own among them: {call.nanoseconds(backward) / 1000:.0f} us"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"  {call.system}:"]
    for at, row in enumerate(rows, 1):
        placed = [x.ljust(w) if i in (0, 1, 9) else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))]
        lines += [("    " + "  ".join(placed)).rstrip(), *([ends[at]] if at in ends else ())]
    return [*lines, f"    saved for backward: {call.saved / 1e6:.0f} MB beside the inputs"]


def cells(one: KernelCost, costs: Costs) -> tuple[str, ...]:
    """One kernel as a row of the table."""
    said = one.verdict
    code = ("?", "?", "?", "?") if said is None else (
        str(said.registers), str(said.spills), f"{said.shared / 1024:.0f}", str(said.count("matrix")))
    registers, spills, shared, matrix = code
    return (
        costs.short(one), one.tiles, registers, spills, shared,
        str(one.resident.percent), matrix, f"{one.bytes / 1e6:.0f}", f"{(one.products + one.elementwise) / 1e9:.1f}",
        f"{one.nanoseconds / 1000:.0f}", f"{one.memory / 1000:.0f}", f"{one.arithmetic / 1000:.0f}", one.bound,
    )
