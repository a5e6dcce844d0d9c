"""`seqc lsp`: the language server, for editors. In: requests on standard input. Out: answers on standard output."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from seqc.diagnostics import Unsupported


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("--stdio", action="store_true", help="talk on standard input and output, as it always does")


def run(args: argparse.Namespace) -> int:
    """Serve until the editor goes."""
    if find_spec("pygls") is None:
        raise Unsupported.of("no-pygls", "the language server needs pygls", help="`pip install 'seqc[editor]'` brings it")
    from seqc.editor.server import made

    made().start_io()
    return 0
