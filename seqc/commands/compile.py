"""`seqc compile`: the emitted file of a spec. In: a spec and wishes. Out: a file, or its text on stdout with `-o -`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from seqc.commands.options import add_choices, add_json, add_spec, dump_into, options, say


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (default: NAME_kernel.py; - is stdout)")
    add_choices(parser)
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write the graph after each pass into DIR")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, write, and say what was written."""
    from seqc.compiled import compile_spec

    watch = dump_into(args.dump) if args.dump else None
    compiled = compile_spec(args.spec, options(args), watch)
    if args.output == "-":
        sys.stdout.write(compiled.text)
        return 0
    path = Path(args.output or f"{compiled.signature.spec}_kernel.py")
    path.write_text(compiled.text, encoding="utf-8")
    parts = {name: {"form": block.form, "rows": block.rows} for name, block in compiled.blocks.items()}
    if args.json:
        print(json.dumps({"ok": True, "file": path.as_posix(), "lines": compiled.text.count("\n"), "parts": parts}))
        return 0
    forms = "; ".join(f"{name}: {part['form']}, {part['rows']} rows a block" for name, part in parts.items())
    say(f"{path}: {compiled.text.count(chr(10))} lines ({forms})")
    return 0
