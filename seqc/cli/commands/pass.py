"""`seqc pass`: one stage of the pipeline on a dumped graph. In: its name, a file of `compile --dump`. Out: its dump."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from seqc.cli.commands.options import SPEC, spec_path


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("name", metavar="NAME", help="a stage of the pipeline (passes/__init__.py), such as simplify")
    parser.add_argument("file", metavar="FILE.ir", type=Path, help="the dump of the stage before, as it is or edited")
    found = "NAME.seq in this folder, or the shipped spec NAME"
    parser.add_argument("--spec", type=spec_path, metavar="SPEC", help=f"the spec of the dump (default: {found}): {SPEC}")
    parser.add_argument("--form", metavar="NAME", help="as it was for `compile`")
    parser.add_argument("--rows", type=int, metavar="C", help="as it was for `compile`")


def run(args: argparse.Namespace) -> int:
    """Run the stage and print what it gives."""
    from seqc.diagnostics import Diagnostic, Refusal, SpecError
    from seqc.driver.dump import read, text_of
    from seqc.driver.one_pass import one_pass
    from seqc.frontend.elaborate import load
    from seqc.ir.graph_text import IrError

    try:
        text = args.file.read_text(encoding="utf-8")
        given = read(text)
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise Refusal(Diagnostic("cannot-read", f"cannot read `{args.file}`: {why}")) from problem
    except IrError as problem:
        raise Refusal(Diagnostic("bad-graph", f"{args.file}: {problem}")) from problem
    head = re.match(r"# (\S+) after \w+", text)
    if head is None and not args.spec:
        help = "`seqc compile SPEC --dump DIR` writes dumps; the spec of another graph is told by `--spec`"
        message = f"`{args.file}` is no dump: it does not begin with `# SPEC after STAGE`"
        raise Refusal(Diagnostic("bad-graph", message, help=help))
    try:
        own = Path(f"{head[1]}.seq" if head else "")  # a spec of one's own; else one that ships
        program = load(args.spec or (own if own.is_file() else spec_path(head[1] if head else "")))
    except SpecError as problem:
        if args.spec or problem.diagnostics[0].code != "no-file":
            raise
        message = f"`{args.file}` is a dump of `{head[1] if head else ''}`, and there is no spec of that name here"
        raise Refusal(Diagnostic("no-file", message, help="say where it is: `--spec FILE.seq`")) from problem
    found = one_pass(args.name, program, given, args.form, args.rows)
    print(text_of(args.name, found, program), end="")
    return 0
