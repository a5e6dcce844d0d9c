"""Specs with words lost, swapped and added at random: each is taken or answered with diagnostics, never with a failure; what is
taken says the same when it is formatted.

The mutations are the same on every run. What diagnostics say is tested on the pages of tests/errors; here only that they come.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from seqc.diagnostics import Refusal
from seqc.driver.pipeline import check
from seqc.frontend.elaborate import load
from seqc.frontend.format import format_text

SPECS = Path(__file__).parents[2] / "specs"
DOC = re.compile(r'"""(?:.|\n)*?"""')
WORD = re.compile(r"[^\W\d]\w*|\d+\.?\d*(?:[eE][+-]?\d+)?|->|<=|>=|==|!=|\.\.|\n|\S|[ \t]+")
WORDS = tuple(
    f"""0 1 - inf K H t [t-1] [K] sum[K] @ exp( ( ) [ ] softmax[V] 1i 0.5 * / ^ 1e400 2^1000 layernorm[K]( max( where( q S ->
    fold[J]( {'"' * 3} # in unit[K] state input = , é norm[K,V] index[H] eye[K] pi B s -1 1e-320 .. t+1 stopgrad( withgrad(
    and or not [K=0] [K->K'] gradclip( clamp( floor( std[K]( every output T S_t init \ufeff × ² param' \\
    """.split()
)
SEEDS = range(12)
EACH = 20


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to three changes: a word lost, exchanged, doubled, replaced or added; a line lost or moved."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        words, lines = WORD.findall(text), text.split("\n")
        i, j = (rng.choice([n for n, w in enumerate(words) if w.strip()]) for _ in range(2))
        k, m = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                words[i] = ""
            case 1:
                words[i], words[j] = words[j], words[i]
            case 2:
                words[i] = rng.choice(WORDS)
            case 3:
                words[i] += f" {rng.choice(WORDS)} "
            case 4:
                words[i] *= 2
            case 5:
                lines.pop(k)
                words = ["\n".join(lines)]
            case 6:
                lines[k], lines[m] = lines[m], lines[k]
                words = ["\n".join(lines)]
        text = "".join(words)
    return text


@pytest.mark.parametrize("seed", SEEDS)
def test_taken_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    texts = [DOC.sub("", path.read_text(encoding="utf-8")) for path in sorted(SPECS.rglob("*.seq"))]
    for _ in range(EACH):
        text = mutated(rng.choice(texts), rng)
        try:
            program = load(text)
            check(program)
            again = load(format_text(text))
            assert again.graph == program.graph, text
            assert [d.code for d in again.warnings] == [d.code for d in program.warnings], text
        except Refusal as refusal:
            assert re.match(r"(error|unsupported)\[[\w-]+\]: ", str(refusal)), text
