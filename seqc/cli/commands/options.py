"""Arguments that several commands share, and what they mean. In: a parser, or parsed arguments. Out: `Options`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqc.driver.options import Options


LARGEST = 1 << 31  # kernels count with 32 bits
SPEC = "a .seq file, the name of a shipped spec (`seqc list`), or - for standard input"


def add_spec(parser: argparse.ArgumentParser) -> None:
    """The spec, a path."""
    parser.add_argument("spec", metavar="SPEC", type=spec_path, help=SPEC)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="answer in JSON, for a machine to read")


def add_strict(parser: argparse.ArgumentParser) -> None:
    """`--strict`."""
    parser.add_argument("--strict", action="store_true", help="fail where there are warnings")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What a caller may wish of the compiler."""
    parser.add_argument("--backend", default="auto", metavar="NAME", help="auto (default), triton, cpu or torch")
    parser.add_argument("--target", default="sm_90", metavar="NAME", help="GPU to choose tiles for (default: sm_90)")
    parser.add_argument(
        "--dim", dest="dims", action="append", default=[], type=dim, metavar="NAME=SIZE", help="fix the size of a dim"
    )
    parser.add_argument("--form", metavar="NAME", help="step, scan, chunkwise or newton (default: the cheapest)")
    parser.add_argument("--rows", type=int, metavar="C", help="steps per block, a power of two")
    parser.add_argument("--save-states", type=int, metavar="N",
                        help="keep a state every N steps for the backward pass, which computes those between again")


def options(args: argparse.Namespace) -> Options:
    """The arguments of `add_choices` as options."""
    from seqc.driver.options import Options

    return Options(args.backend, args.target, dict(args.dims), args.form, args.rows, args.save_states)


def spec_path(text: str) -> Path:
    """The file of a spec: a path, whatever its ending; the name of a shipped spec; `-` for standard input."""
    from seqc.frontend.sources import located

    return located(text)


def dim(text: str) -> tuple[str, int]:
    """`K=64` as a name and a size."""
    name, equals, size = text.partition("=")
    if not (equals and name.isidentifier() and size.isdecimal()):
        raise argparse.ArgumentTypeError(f"`{text}` should look like K=64")
    if len(size) > 10 or int(size) >= LARGEST:
        raise argparse.ArgumentTypeError(f"`{text}`: a size is below 2^31")
    return name, int(size)


def count(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or len(text) > 10 or not 0 < int(text) < LARGEST:
        raise argparse.ArgumentTypeError(f"`{text}` should be a number above 0 and below 2^31")
    return int(text)


def dump_into(folder: Path, spec: Path) -> Callable[[str, object], None]:
    """A watcher of the pipeline that writes what each stage gave to files numbered in their order. spec: never written."""
    from seqc.driver.dump import text_of
    from seqc.files import folder as make_folder
    from seqc.files import write
    from seqc.ir.program import Program

    make_folder(folder)
    programs: list[Program] = []
    count = 0

    def watch(stage: str, value: object) -> None:
        nonlocal count
        if isinstance(value, Program):
            programs.append(value)
        write(folder / f"{count:02d}_{stage}.ir", text_of(stage, value, programs[-1]), spec)
        count += 1

    return watch


def say(words: str) -> None:
    """A line for the person at the terminal, out of the way of what is piped on."""
    print(words, file=sys.stderr)
