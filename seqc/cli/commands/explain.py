"""`seqc explain`: what the compiler decides for a spec, and why. In: a spec and wishes. Out: text, JSON, or a page of HTML."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from seqc.cli.commands.options import add_choices, add_json, add_spec, options


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    add_choices(parser)
    parser.add_argument("--also", action="append", default=[], metavar="NAME",
                        help="tell of another GPU too; `all` for all. May be repeated")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page of HTML, with the graph")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, and tell."""
    from seqc.cli.commands.tiles import known_targets
    from seqc.driver.compile import compile_spec
    from seqc.driver.explain.facts import facts
    from seqc.driver.explain.text import explanation

    also = known_targets([] if "all" in args.also else args.also) if args.also else []
    compiled = compile_spec(args.spec, options(args))
    if args.html:
        from seqc.driver.explain.page import page
        from seqc.files import put, write

        if args.html == Path("-"):
            put(page(compiled, also))
        else:
            print(write(args.html, page(compiled, also), args.spec))
        return 0
    print(json.dumps(facts(compiled, also), indent=2) + "\n" if args.json else explanation(compiled, also), end="")
    return 0
