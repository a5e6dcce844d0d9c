"""`seqc graph`: the graph before and after each pass. In: a spec and wishes. Out: numbered DOT files, each with an SVG file."""

from __future__ import annotations

import argparse
from pathlib import Path

from seqc.cli.commands.options import add_choices, add_spec, options


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add_spec(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: NAME_graphs)")
    add_choices(parser)


def run(args: argparse.Namespace) -> int:
    """Draw what each stage of the pipeline gives, as far as it is a graph."""
    from seqc.driver.dump import graphs
    from seqc.driver.pipeline import fix_dims, lower
    from seqc.files import folder as make_folder
    from seqc.files import write
    from seqc.frontend.elaborate import load
    from seqc.ir.dot import dot, svg
    from seqc.ir.picture import picture
    from seqc.passes import PIPELINE

    wishes = options(args)
    program = fix_dims(load(args.spec, wishes.dims), wishes.dims)
    folder = make_folder(args.output or Path(f"{program.name}_graphs"))
    numbers = {name: i for i, name in enumerate(("spec", *(stage.name for stage in PIPELINE)))}

    def watch(stage: str, value: object) -> None:
        for title, graph in graphs(value).items():
            path = folder / f"{numbers[stage]:02d}_{stage}_{title}.dot"
            text = dot(f"{program.name} after {stage}: {title}", graph, program.definitions)
            write(path, text, args.spec)
            drawn = svg(text) or picture(graph, program.definitions)
            print(write(path.with_suffix(".svg"), drawn, args.spec))

    lower(program, wishes.form, wishes.rows, watch=watch)
    return 0
