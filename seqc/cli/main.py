"""The command `seqc`: reads the command line, runs one command, turns failures into messages and exit codes.

In: the arguments. Out: an exit code: 0 done, 1 the spec is wrong, asks for what is not served, or a file cannot be read or
written (diagnostics on stderr, never a traceback), 2 the command line is wrong, 3 the compiler itself failed, 130 the
person has interrupted it. A command is a module of `seqc.cli.commands`, imported only when it is called:
`configure(parser)` declares its arguments, `run(arguments)` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from seqc import __version__
from seqc.cli.commands.terminal import painted
from seqc.diagnostics import Diagnostic, Refusal, SeqcBug, near_miss, visible

COMMANDS = {
    "compile": "write the standalone Python file of a spec",
    "layer": "write a layer of a network around a spec",
    "check": "find what is wrong with a spec: its text, its ranges, its claims",
    "explain": "say what the compiler decides for a spec, and why",
    "graph": "draw the graph before and after each pass",
    "pass": "run one stage of the pipeline on a dumped graph",
    "verify": "compare the emitted code with the oracle and with finite differences",
    "prove": "show in exact arithmetic that a spec's blocks are its steps, and gradients derivatives",
    "fmt": "print specs in the canonical layout",
    "tiles": "show the tiles of a spec's kernels and what the toolchain says of them",
    "report": "tell what a spec's kernels cost on a GPU that need not be there",
    "bench": "time specs: the eager step loop beside what seqc emits",
    "new": "write a commented spec to start from",
    "list": "list the specs that ship with seqc",
    "doctor": "tell what this machine offers seqc, and what is missing",
    "lsp": "serve editors: mistakes, meanings, completion, renaming, layout",
    "completion": "print a script that completes words in a shell",
}
BEGIN = "To begin: seqc new my, then seqc check my.seq, seqc compile my.seq, seqc bench my.seq. seqc COMMAND --help tells more."
DONE, WRONG, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout, sys.stderr = (stream or io.StringIO() for stream in (sys.stdout, sys.stderr))  # closed: nobody reads
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path or a name that the terminal's encoding lacks is shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(given)
        if not sys.stdout.closed:  # the language server closes it when the editor goes
            sys.stdout.flush()
        return code
    except Refusal as refusal:
        return _refused(refusal, "--json" in given)
    except SeqcBug as bug:
        return _bug(bug)
    except KeyboardInterrupt:
        return _silent(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone
        return _silent(DONE)
    except OSError as error:
        return _failed(error, "--json" in given)
    except Exception as error:
        if sys.flags.dev_mode:  # python -X dev -m seqc: for those who look for the cause
            raise
        return _bug(SeqcBug.of("the command line", error))


def _run(given: list[str]) -> int:
    """Run the command that the words ask for."""
    word = next((word for word in given if not word.startswith("-")), None)
    if word is not None and word not in COMMANDS:
        print(f"seqc: there is no command `{visible(word)}`: {near_miss(word, COMMANDS, 'one of')}", file=sys.stderr)
        return USAGE
    try:
        parser = build_parser(given)
        args = parser.parse_args(given)
        if args.command is None:
            parser.print_help()
            return USAGE
        return int(import_module(f"seqc.cli.commands.{args.command}").run(args))
    except SystemExit as stop:  # argparse has said what is wrong, or has shown the help
        return stop.code if isinstance(stop.code, int) else DONE


def _refused(refusal: Refusal, for_machine: bool) -> int:
    if for_machine:
        print(json.dumps({"ok": False, "diagnostics": [as_json(d) for d in refusal.diagnostics]}, indent=2), flush=True)
    else:
        print(painted(refusal.render(), sys.stderr), file=sys.stderr)
    return WRONG


def _failed(error: OSError, for_machine: bool) -> int:
    """What the system refuses, where no command has told it better: a full disk, a program that cannot start."""
    where = f"`{error.filename}`: " if error.filename else ""
    _silent(WRONG)
    return _refused(Refusal(Diagnostic("system", f"{where}{error.strerror or error}")), for_machine)


def _bug(bug: SeqcBug) -> int:
    print(visible(str(bug)), file=sys.stderr)
    return BUG


def _silent(code: int) -> int:
    """Leave without another word: what is still to be written goes nowhere, so that the end of the process is quiet too."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def build_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of the commands, only the one that is called knows its arguments."""
    parser = argparse.ArgumentParser(prog="seqc", description="Write the recurrence, get the kernel.", epilog=BEGIN)
    parser.add_argument("--version", action="version", version=f"seqc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    called = next((word for word in given if word in COMMANDS), None)
    for name, help in COMMANDS.items():
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        if name == called:
            import_module(f"seqc.cli.commands.{name}").configure(sub)
    return parser


def as_json(diagnostic: Diagnostic) -> dict[str, object]:
    """A diagnostic for a machine to read: places count from 1."""
    places = [
        {
            "file": label.span.source.name,
            "line": label.span.line,
            "column": label.span.column,
            "length": label.span.end - label.span.start,
            "text": label.text,
        }
        for label in diagnostic.labels
    ]
    return {
        "kind": diagnostic.kind,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "places": places,
        "cause": diagnostic.cause,
        "help": diagnostic.help,
    }


if __name__ == "__main__":
    sys.exit(main())
