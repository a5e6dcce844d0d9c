"""What the compiler decided for a spec, and why: as data for a machine, and as text for a person.

In: a compiled spec. Out: `facts`, plain dicts and lists; `explanation`, the same as text. Costs are those of the model
that chose the forms, for one token at the extents that it assumed; figures of the toolchain come from the committed
table, never from the machine at hand.
"""

from __future__ import annotations

import textwrap
from typing import Any

from seqc.block import Block
from seqc.compiled import Compiled
from seqc.cost import cost, volume
from seqc.describe import TITLES, gate_inputs
from seqc.diagnostics import Unsupported
from seqc.graph import BATCH, COL, ROW
from seqc.program import TensorDecl

WIDTH = 110
DECIDED = ("form", "numerics", "tiles", "phases", "memory")  # topics that belong to a part of the file, in this order


def facts(compiled: Compiled) -> dict[str, Any]:
    """Everything that is told, as data."""
    program = compiled.program
    from seqc.figures import extents

    sizes = extents(program)
    reasons = compiled.blocks["torch"].reasons
    told = {r.subject: r.text for r in reasons if r.topic == "eigenvalues"}
    claims = {r.subject: r.text for r in reasons if r.topic == "claim"}
    components = []
    for reason in reasons:
        if reason.topic == "class":
            states = [shape(program.states[name]) for name in reason.subject.split(", ")]
            names = reason.subject.split(", ")
            components.append(
                {
                    "states": states,
                    "class": reason.text,
                    "transition": {name: told[name] for name in names if name in told},
                    "claims": {name: claims[name] for name in names if name in claims},
                }
            )
    return {
        "spec": program.name,
        "file": program.path,
        "about": textwrap.dedent(program.doc).strip().split("\n")[0],
        "components": components,
        "parts": {name: part(block, sizes) for name, block in compiled.blocks.items()},
        "kernels": kernels(compiled, sizes),
        "missing": dict(compiled.missing),
        "gates": sorted(gate_inputs(program)),
        "extents": {d: sizes[d] for d in program.dims},
        "assumed": [d.name for d in program.dims.values() if d.default is None],
    }


def shape(decl: TensorDecl) -> str:
    """`S[H, K, V]`."""
    return f"{decl.name}[{', '.join(decl.dims)}]" if decl.dims else decl.name


def part(block: Block, sizes: dict[str, int]) -> dict[str, Any]:
    """One part of the file: its form, what was decided on the way, and what a token costs."""
    decided = {topic: [f"{r.subject}: {r.text}" for r in block.reasons if r.topic == topic] for topic in DECIDED}
    known = {**sizes, BATCH: 1, ROW: block.rows, COL: block.rows}
    forward, backward = (cost(g.values(), known) for g in (block.forward, block.backward))
    program = block.program
    moved = sum(volume((BATCH, *d.dims), known) for d in (*program.inputs.values(), *program.output_decls.values()))
    state = sum(volume(d.axes, known) for d in program.states.values())
    return {
        "form": block.form,
        "rows": block.rows,
        "decisions": {topic: lines for topic, lines in decided.items() if lines},
        "token": {
            "operations forward": round(forward.flops / block.rows),
            "operations backward": round(backward.flops / block.rows),
            "share in matrix products": round(forward.matrix / forward.flops, 2) if forward.flops else 0.0,
            "bytes in and out": round(4 * moved),
            "bytes of state": round(4 * state),
        },
    }


def kernels(compiled: Compiled, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """The GPU kernels with their tiles, and the toolchain's figures for every target that was asked."""
    block = compiled.blocks.get("triton")
    if block is None:
        return []
    from seqc.figures import figures, tiles_of
    from seqc.targets import TARGETS
    from seqc.tiling.verdicts import VerdictTable

    table = VerdictTable.load()
    asked, clashes = {}, {}
    for name in TARGETS:
        try:
            asked[name] = figures(block, name, sizes, table)
        except Unsupported as clash:
            if name == compiled.options.target:
                raise
            clashes[name] = "; ".join(d.cause or d.message for d in clash.diagnostics)
    binds = list(tiles_of(block, compiled.options.target, sizes).why.values())
    found = []
    for i, one in enumerate(asked[compiled.options.target]):
        told = {name: rows[i].words() for name, rows in asked.items() if rows[i].verdict is not None}
        told |= {name: f"no tiles: {why}" for name, why in clashes.items()}
        found.append({**one.data(), "tiles": one.tiles(), "binds": binds[i], "figures": told})
    return found


def explanation(compiled: Compiled) -> str:
    """The facts as text."""
    told = facts(compiled)
    lines = [f"{told['spec']}: {told['about']}" if told["about"] else told["spec"], "", "recurrence"]
    for component in told["components"]:
        lines += wrapped(f"{', '.join(component['states'])}: {component['class']}", 2)
        for name, text in component["transition"].items():
            lines += wrapped(f"transition of {name}: {text}", 6)
        for name, text in component["claims"].items():
            lines += wrapped(f"claim on {name}: {text}", 6)
    carried = "states and sums are carried in fp32 whatever the inputs' dtype (in fp64 for fp64 inputs)"
    lines.append(f"  {carried}" if told["components"] else "  no state: every step is by itself")
    if told["gates"]:
        lines += wrapped(f"gates, kept in fp32 beside half-precision inputs: {', '.join(told['gates'])}", 2)
    for name, one in told["parts"].items():
        rows = "step by step" if one["form"] == "step" else f"{one['form']}, {one['rows']} steps a block"
        lines += ["", f"{TITLES[name]}: {rows}"]
        for topic, decisions in one["decisions"].items():
            for text in decisions:
                lines += wrapped(f"{topic}: {text}", 2)
        token = one["token"]
        at = ", ".join(f"{d} = {n}" for d, n in told["extents"].items())
        assumed = " (assumed)" if told["assumed"] else ""
        lines += wrapped(
            f"one token at {at}{assumed}: {amount(token['operations forward'])} operations forward "
            f"({100 * token['share in matrix products']:.0f}% in matrix products), "
            f"{amount(token['operations backward'])} backward; {amount(token['bytes in and out'])}B of inputs and outputs "
            f"and {amount(token['bytes of state'])}B of state, in fp32",
            2,
        )
        if name == "triton":
            lines += _kernel_lines(told["kernels"], compiled.options.target)
    for name, why in told["missing"].items():
        lines += ["", f"{TITLES[name]}: none", *wrapped(why, 2)]
    return "\n".join(lines) + "\n"


def _kernel_lines(told: list[dict[str, Any]], target: str) -> list[str]:
    lines = [f"  tiles for {target}, bf16:"]
    for one in told:
        lines += wrapped(f"{one['kernel']}: {one['tiles']}", 4)
        lines += wrapped(f"binds: {one['binds']}", 8)
        lines += [line for name, words in one["figures"].items() for line in wrapped(f"{name}: {words}", 8)]
    if not any(one["figures"] for one in told):
        lines.append("    no figures recorded for these extents: `seqc tiles --refresh` asks the toolchain")
    return lines


def wrapped(text: str, indent: int) -> list[str]:
    """Lines of text, those after the first further in."""
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4))


def amount(n: int) -> str:
    """`1.2 million`-like numbers, short."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= 10 * size:
            return f"{n / size:.0f} {unit}"
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return str(n)
