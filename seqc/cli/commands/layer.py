"""`seqc layer`: a layer of a network around a spec. In: a spec and wishes. Out: one file with the layer and its recurrence, or
the layer alone, which imports the recurrence from a file of `seqc compile`."""

from __future__ import annotations

import argparse
from pathlib import Path

from seqc.cli.commands.check import tell
from seqc.cli.commands.options import add_choices, add_spec, options, say


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (default: NAME_layer.py; - is stdout)")
    parser.add_argument(
        "--given", metavar="INPUT,...", type=lambda text: text.split(","), default=[],
        help="inputs that every call of the layer gives, instead of a projection",
    )
    parser.add_argument(
        "--kernel", metavar="MODULE", help="leave the recurrence out, write it to MODULE.py beside, and import it from there"
    )
    add_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Write the layer, and say what was written."""
    from seqc.driver.layers.layer import compile_layer
    from seqc.files import STDOUT, protect, put, write
    from seqc.frontend.sources import read

    if args.output not in (None, STDOUT):
        protect(args.output, args.spec)
    if args.kernel is not None:
        _refuse_kernel(args.kernel, args.output)
    made = compile_layer(read(args.spec), options(args), args.given)
    tell(made.compiled.program.warnings)
    text = made.text if args.kernel is None else made.beside(args.kernel)
    if args.output == STDOUT:
        put(text)
        return 0
    path = Path(args.output or f"{made.plan.sig.spec}_layer.py")
    if args.kernel is not None:
        kernel = path.parent / f"{args.kernel.rpartition('.')[2]}.py"
        write(kernel, made.compiled.text, args.spec)
        say(f"{kernel}: the recurrence")
    write(path, text, args.spec)
    say(f"{path}: {made.plan.sig.class_name}Layer, {text.count(chr(10))} lines")
    return 0


def _refuse_kernel(module: str, output: str | None) -> None:
    from seqc.diagnostics import Unsupported
    from seqc.files import STDOUT

    if not all(word.isidentifier() for word in module.split(".")):
        raise Unsupported.of("layer-kernel", f"`{module}` is not the name of a module", help="write --kernel gla_kernel")
    if output == STDOUT:
        message = "with --kernel the recurrence is a file beside the layer, and stdout has no place for it"
        raise Unsupported.of("layer-kernel", message, help="give the file a name with -o")
