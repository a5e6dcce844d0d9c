"""Colours for specs: a lexer for Pygments (`pygmentize`, Sphinx, MkDocs, notebooks know it as `seq`) and a TextMate grammar for
editors. In: a text, or nothing. Out: tokens, or the grammar as JSON. Both are made of the words that the front end knows.

`python -m seqc.editor.highlight` writes `seqc.tmLanguage.json` beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text, Whitespace

from seqc.editor.words import CONSTANT_HELP, FUNCTION_HELP, MARK_HELP, STATEMENT_HELP

GRAMMAR = Path(__file__).with_name("seqc.tmLanguage.json")
_MARKS = sorted({*MARK_HELP, "of", "batch", "once"})
_NUMBER = r"(\d+\.(?!\.)\d*|\.\d+|\d+)([eE][+-]?\d+)?i?(?!\w)"
_OPERATOR = r"<=|>=|==|!=|->|\.\.|[-+*/^@<>=:%]"
_NAME = r"[^\W\d]\w*'*"


class SeqcLexer(RegexLexer):  # type: ignore[misc]  # Pygments has no types
    """Pygments' view of a spec."""

    name = "seqc"
    url = "https://pypi.org/project/seqc"
    aliases: ClassVar = ["seq", "seqc"]
    filenames: ClassVar = ["*.seq"]
    tokens: ClassVar = {
        "root": [
            (r"\s+", Whitespace),
            (r"#.*", Comment.Single),
            (r'"""(.|\n)*?"""', String.Doc),
            (rf"(?m)^([ \t]*)({'|'.join(sorted(STATEMENT_HELP))})(?=[ \t]+[\w(])", bygroups(Whitespace, Keyword.Declaration)),
            (words(sorted(FUNCTION_HELP), prefix=r"(?<!\w)", suffix=r"(?=\s*(\[[^\]\n]*\]\s*)?\()"), Name.Builtin),
            (words(sorted(CONSTANT_HELP), prefix=r"(?<!\w)", suffix=r"\b"), Name.Constant),
            (r"(and|or|not)\b", Operator.Word),
            (words(_MARKS, prefix=r"(?<!\w)", suffix=r"(?=[ \t]*[\w\[%.-])(?!\w)"), Keyword),
            (r"complex\b", Keyword),
            (_NUMBER, Number),
            (_NAME, Name),
            (_OPERATOR, Operator),
            (r"[()\[\]{},]", Punctuation),
            (r".", Text),
        ]
    }


def textmate() -> dict[str, Any]:
    """The grammar that VS Code, Sublime Text, TextMate and others read."""
    def rule(name: str, match: str) -> dict[str, Any]:
        return {"name": f"{name}.seqc", "match": match}

    functions, constants = "|".join(sorted(FUNCTION_HELP)), "|".join(sorted(CONSTANT_HELP))
    return {
        "name": "seqc",
        "scopeName": "source.seqc",
        "fileTypes": ["seq"],
        "patterns": [
            rule("comment.line.number-sign", "#.*$"),
            {"name": "string.quoted.triple.seqc", "begin": '"""', "end": '"""'},
            rule("keyword.declaration", rf"^\s*({'|'.join(sorted(STATEMENT_HELP))})(?=\s+[\w(])"),
            rule("support.function", rf"\b({functions})(?=\s*(\[[^\]]*\]\s*)?\()"),
            rule("constant.language", rf"\b({constants})\b"),
            rule("keyword.operator.logical", r"\b(and|or|not)\b"),
            rule("storage.modifier", rf"\b({'|'.join(_MARKS)}|complex)\b(?!\s*=)"),
            rule("constant.numeric", rf"(?<![\w']){_NUMBER}"),
            rule("variable.other", r"[_\p{L}][\w]*'*"),
            rule("keyword.operator", _OPERATOR),
        ],
    }


def text() -> str:
    """The grammar's file."""
    return json.dumps(textmate(), indent=2) + "\n"


if __name__ == "__main__":
    GRAMMAR.write_text(text(), encoding="utf-8")
