"""`seqc compile`: the emitted file of a spec. In: a spec and wishes. Out: a file, or its text on stdout with `-o -`; with
`--prebuild` also native libraries beside the file, so that its first call needs no compiler."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from seqc.cli.commands.check import tell
from seqc.cli.commands.options import add_choices, add_json, add_spec, add_strict, dim, dump_into, options, say
from seqc.diagnostics import SpecError, Unsupported

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (default: NAME_kernel.py; - is stdout)")
    add_choices(parser)
    parser.add_argument(
        "--prebuild", nargs="?", action="append", type=_sizes, const={}, default=[], metavar="NAME=SIZE,...",
        help="build the native library ahead, for dims of these sizes; may be repeated",
    )
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write the graph after each pass into DIR")
    add_json(parser)
    add_strict(parser)


def run(args: argparse.Namespace) -> int:
    """Compile, write, and say what was written."""
    from seqc.cli.main import as_json
    from seqc.driver.compile import compile_spec
    from seqc.driver.explain.text import form_of
    from seqc.files import STDOUT, protect, put, write

    if args.output not in (None, STDOUT):
        protect(args.output, args.spec)
    watch = dump_into(args.dump, args.spec) if args.dump else None
    compiled = compile_spec(args.spec, options(args), watch)
    warnings = compiled.program.warnings
    if args.strict and warnings:
        raise SpecError(warnings)
    if not args.json:
        tell(warnings)
    path = Path(args.output or f"{compiled.signature.spec}_kernel.py")
    if args.prebuild and (args.output == STDOUT or (path.exists() and not path.is_file())):
        place = "stdout" if args.output == STDOUT else f"`{path}`"
        raise _refused(f"a library built ahead lies beside its file, and {place} is none", "give the file a name with -o")
    if args.output == STDOUT:
        put(compiled.text)
        return 0
    built = [library.as_posix() for sizes in args.prebuild for library in prebuilt(compiled, sizes, path)]
    write(path, compiled.text, args.spec)
    parts = {name: {"form": block.form, "rows": block.rows} for name, block in compiled.blocks.items()}
    if args.json:
        print(json.dumps({"ok": True, "file": path.as_posix(), "lines": compiled.text.count("\n"), "parts": parts,
                          "prebuilt": built, "warnings": [as_json(warning) for warning in warnings]}))
        return 0
    forms = "; ".join(f"{name}: {form_of(part)}" for name, part in parts.items())
    say(f"{path}: {compiled.text.count(chr(10))} lines ({forms})")
    for library in built:
        say(f"{library}: float32, for this processor and those that can do all that it can")
    return 0


def prebuilt(compiled: Compiled, sizes: dict[str, int], path: Path) -> list[Path]:
    """The native libraries built ahead for these sizes, defaults of dims elsewhere. Raises Unsupported."""
    from seqc.backends.native_cpu import prebuild
    from seqc.driver.pipeline import fix_dims

    native = compiled.signature.cpu
    if native is None:
        reason = compiled.missing.get("cpu", f"the backend `{compiled.options.backend}` leaves it out")
        raise _refused(f"the file has no native part: {reason}", "leave --prebuild out")
    dims = fix_dims(compiled.program, sizes).dims
    loop = compiled.loop.signature.cpu if compiled.loop is not None else None
    libraries = (*native.libraries, *(loop.libraries if loop is not None else ()))
    return prebuild(libraries, {d: x.default for d, x in dims.items() if x.default is not None}, path)


def _sizes(text: str) -> dict[str, int]:
    """`K=64,V=64` as names and sizes."""
    return dict(map(dim, text.split(",")))


def _refused(message: str, help: str) -> Unsupported:
    return Unsupported.of("prebuild", message, help=help)
