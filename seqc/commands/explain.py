"""`seqc explain`: what the compiler decides for a spec, and why. In: a spec and wishes. Out: text, or JSON."""

from __future__ import annotations

import argparse
import json

from seqc.commands.options import add_choices, add_json, add_spec, options


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    add_choices(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, and tell."""
    from seqc.compiled import compile_spec
    from seqc.explanation import explanation, facts

    compiled = compile_spec(args.spec, options(args))
    print(json.dumps(facts(compiled), indent=2) if args.json else explanation(compiled), end="\n" if args.json else "")
    return 0
