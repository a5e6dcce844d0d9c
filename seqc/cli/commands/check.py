"""`seqc check`: what is wrong with specs, without lowering them. In: specs. Out: diagnostics, or a line per claim."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seqc.cli.commands.options import SPEC, add_json, add_strict, spec_path
from seqc.cli.commands.terminal import painted

if TYPE_CHECKING:
    from seqc.diagnostics import Diagnostic
    from seqc.ir.program import Program


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    add_json(parser)
    add_strict(parser)


def run(args: argparse.Namespace) -> int:
    """Check every spec; 1 if one is wrong, or has warnings where these count."""
    from seqc.cli.main import as_json
    from seqc.diagnostics import Refusal

    answers: list[dict[str, object]] = []
    for path in args.specs:
        answer: dict[str, object] = {"file": path.as_posix(), "ok": True, "diagnostics": []}
        try:
            program, found = findings(path)
            answer |= found | {"ok": not (args.strict and program.warnings)}
            if not args.json:
                tell(program.warnings)
        except Refusal as refusal:
            answer |= {"ok": False, "diagnostics": [as_json(d) for d in refusal.diagnostics]}
            if not args.json:
                print(painted(refusal.render(), sys.stderr), end="\n\n", file=sys.stderr)
        answers.append(answer)
        if answer["ok"] and not args.json:
            print(words(answer))
    if args.json:
        print(json.dumps(answers, indent=2))
    return 0 if all(answer["ok"] for answer in answers) else 1


def tell(warnings: tuple[Diagnostic, ...]) -> None:
    """Warnings, out of the way of what is piped on."""
    for warning in warnings:
        print(painted(warning.render(), sys.stderr), end="\n\n", file=sys.stderr)


def findings(path: Path) -> tuple[Program, dict[str, object]]:
    """A spec that is right, and what is found of it: its name, its components, its claims, its warnings."""
    from seqc.cli.main import as_json
    from seqc.driver.pipeline import check
    from seqc.frontend.elaborate import load

    program = load(path)
    known = check(program)
    components, claims = known["components"], known["claims"]
    assert isinstance(components, tuple) and isinstance(claims, tuple)
    return program, {
        "spec": program.name,
        "diagnostics": [as_json(warning) for warning in program.warnings],
        "components": [{"states": list(c.states), "class": c.kind, "why": c.why} for c in components],
        "claims": [{"state": r.subject, "text": r.text} for r in claims if r.topic == "claim"],
    }


def words(answer: dict[str, object]) -> str:
    """The answer for a person."""
    components, claims = answer["components"], answer["claims"]
    assert isinstance(components, list) and isinstance(claims, list)
    kinds = "; ".join(f"{', '.join(c['states'])}: {c['class']}" for c in components) or "no state"
    return "\n".join([f"{answer['file']}: ok ({kinds})", *(f"    {c['state']}: {c['text']}" for c in claims)])
