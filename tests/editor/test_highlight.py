"""Colours: Pygments finds no error in any shipped spec, and the TextMate grammar is the one that the words give."""

import json

from pygments.lexers import get_lexer_by_name
from pygments.token import Keyword, Name, Text, Token

from seqc.editor import highlight
from seqc.editor.words import STATEMENT_HELP
from seqc.frontend.sources import read, shipped


def test_lexer_knows_every_shipped_spec() -> None:
    lexer = get_lexer_by_name("seq")  # by the entry point of the installed package
    for name in shipped():
        tokens = list(lexer.get_tokens(read(name).text))
        assert "".join(value for _, value in tokens).strip() == read(name).text.strip()
        assert not [value for kind, value in tokens if kind in (Token.Error, Text)], name


def test_words_are_coloured_where_they_are_words() -> None:
    text = "spec a\ninput input, index[N] in [0, 1]\nsum = sum[N](index) + index[N]\n"
    tokens = [(kind, value) for kind, value in highlight.SeqcLexer().get_tokens(text) if value.strip()]
    assert [value for kind, value in tokens if kind is Keyword.Declaration] == ["spec", "input"]
    assert [value for kind, value in tokens if kind is Name.Builtin] == ["sum"]


def test_textmate_grammar_is_fresh() -> None:
    assert highlight.GRAMMAR.read_text(encoding="utf-8") == highlight.text(), "run `python -m seqc.editor.highlight`"
    patterns = json.loads(highlight.text())["patterns"]
    declared = next(p["match"] for p in patterns if p["name"].startswith("keyword.declaration"))
    assert all(word in declared for word in STATEMENT_HELP)
