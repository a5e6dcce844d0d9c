"""The grammar file of the spec language, as text. Only `seqc.frontend.parse` gives it to a parser generator."""

from pathlib import Path


def text() -> str:
    """The contents of `seqc.lark`."""
    return Path(__file__).with_name("seqc.lark").read_text(encoding="utf-8")
