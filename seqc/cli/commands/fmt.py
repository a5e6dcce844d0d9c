"""`seqc fmt`: specs in the canonical layout. In: specs. Out: text; with -w, rewritten files; --check only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seqc.cli.commands.options import SPEC, say, spec_path
from seqc.cli.commands.terminal import painted


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", type=spec_path, help=SPEC)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-w", "--write", action="store_true", help="rewrite the files")
    how.add_argument("--check", action="store_true", help="only say which files would change; 1 if any would")


def run(args: argparse.Namespace) -> int:
    """Format every spec. With mistakes in several specs, all are told."""
    from seqc.diagnostics import Refusal
    from seqc.files import put, write
    from seqc.frontend.format import format_text
    from seqc.frontend.sources import STDIN, read

    code = 0
    for path in args.specs:
        try:
            source = read(path)
            text = format_text(source)
        except Refusal as refusal:
            print(painted(refusal.render(), sys.stderr), end="\n\n", file=sys.stderr)
            code = 1
            continue
        if not args.check and (path == Path(STDIN) or not args.write):
            put(text)
        elif text != source.text:
            if args.write:
                write(path, text)
            else:
                code = 1
            say(f"{path}: {'would change' if args.check else 'rewritten'}")
    return code
