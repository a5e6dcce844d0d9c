"""What is advised is right itself: it parses, and names nothing that the language has already. The pages show the texts."""

import re

import pytest

from seqc.diagnostics import SpecError
from seqc.frontend import idioms
from seqc.frontend.elaborate import load
from seqc.frontend.functions import FUNCTIONS
from seqc.frontend.idioms_functions import ELSEWHERE
from seqc.frontend.inner_gradients import GRAD
from seqc.frontend.noise import DRAWN
from seqc.frontend.parse import parse_with_errors
from seqc.frontend.trees import FOLDS
from seqc.frontend.written_out import PRODUCTS

HEAD = "spec a\ndim K\ninput x[K], y[K]\nparam W[K, K]\nstate h[K] = 0\nh = 0.5 * h[t-1] + x\noutput h\n"
ADVICE = {**ELSEWHERE, **idioms._OF_VALUES, **idioms._NAMES, **idioms.CHARACTERS, **idioms.STATEMENTS_ELSEWHERE}


def helps(line: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(HEAD + line + "\n")
    return [d.help for d in caught.value.diagnostics]


def test_no_function_of_the_language_is_called_foreign() -> None:
    assert not {*FUNCTIONS, *DRAWN, *FOLDS, *PRODUCTS, GRAD} & set(ELSEWHERE)


def test_advised_text_can_be_read() -> None:
    """Every formula in quotes is a statement, or the right side of one."""
    for name, advice in ADVICE.items():
        for text in re.findall(r"`([^`]+)`", advice):
            if "..." in text or ("/" in text and ".seq" in text) or not re.search(r"\w\s*[(\[=^*+]|\w [@/*] \w", text):
                continue
            readings = (text, f"v = {text}", f"dim D {text}")
            assert any(not parse_with_errors(f"spec a\n{way}\n").found for way in readings), (name, text)


@pytest.mark.parametrize("char", [c for c in idioms.CHARACTERS if c not in "{}"])
def test_every_character_gets_its_advice(char: str) -> None:
    found = [helps(f"a = x {char} y"), helps(f"{char}a = x"), helps(f"a = {char} x")]
    assert all(idioms.CHARACTERS[char] in told or char in "!?" for told in found), found


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("a = x if y else 0", "where(condition, a, b)"),
        ("h[position[K](x)] = y", "`h[at] = ...`"),
        ("h[0] = y", "h = where(index[K] == 0, ..., h[t-1])"),
        ("a = jnp.linalg.norm(x)", "norm[K](x)"),
        ("a = torch.nn.functional.silu(x)", "`silu(...)`"),
        ("a = x.detach()", "stopgrad(x)"),
        ("a = x.mT @ y", "K -> K'"),
        ("a = x[..., 0]", "x[K = 1]"),
        ("a = x[0, 1:]", "x[K = 1]"),
        ("a = S_{t-2}", "`S[t-2]`"),
        ("a = h_{t}", "write `h`"),
        ("a = h_t1 + h_t", "write `h`, and `h[t-1]`"),
        ("a = h_old * x", "`h[t-1]`"),
        ("a = h0", "state h = ..."),
        ("a = W^T @ x", "K -> K'"),
        ("a = e^x", "exp(x)"),
        ("param a = 0.9", "`param a init 0.5`"),
        ("param W[D, D] = 0.9", "`param W[D, D] init 0.5`"),
        ("param c, W[D, D] = 0.9", "`param W[D, D] init 0.5`"),
        ("buffer m[D] = 1", "`buffer m[D] init 0`"),
        ("input m[D] = 1", "a `const` or `param`"),
        ("a = x // 2", "floor(a / b)"),
        ("a = sum_K(x)", "`sum[K](x)`"),
        ("a = sum_{i} x", "`sum[K](x)`"),
        ("a = tanh x", "`tanh(x)`"),
        ("a = 1_000 * x", "1e4"),
        ("a = (x)(y)", "`a * b`"),
        ("a = x' + y", "a prime marks"),
        ("a = 5 % x", "mod(a, b)"),
        ("a = x \\cdot y", "written `*`"),
        ("a = \\beta * x", "`beta`"),
        ("a = x \\\n  + y", "without a backslash"),
        ("input u v", "commas"),
        ("input u(K)", "square brackets"),
        ("input u: K", "no `:`"),
        ("let a = x", "NAME = ..."),
        ("a, b = x, y", "`a = ...`, and a line for each other"),
        ("a: float = x", "no types"),
        ("a -= x", "a = a[t-1] - ..."),
        ("a == x", "one `=`"),
        ("h(t) = x", "`h = ...`"),
        ("output(a)", "output o = ..."),
        ("// comment", "#"),
        ("%% comment", "#"),
        ("a = norm(x)", "norm[K]"),
        ("a = x && not y", "`and`"),
        ("a = !x", "`not c`"),
        ("a = not -x", "`not (x > 0)`"),
        ("a = π * x", "`pi`"),
        ("a = σ(x)", "sigmoid(x)"),
        ("a = Wᵀ @ x", "K -> K'"),
    ],
)
def test_other_ways(line: str, advice: str) -> None:
    assert any(advice in told for told in helps(line)), helps(line)


def test_an_unknown_name_is_told_once() -> None:
    assert len(helps("a = z + z * z[t-1]\nb = z - foo(x) + foo(y)\noutput a[Q] = sum[Q](x)")) == 3


def test_marks_and_spaces_that_nobody_sees_mean_nothing() -> None:
    plain = load(HEAD).graph
    assert load("\ufeff" + HEAD).graph == plain
    assert load(HEAD.replace(" ", "\u00a0").replace("\n", "\r\n")).graph == plain
    assert load(HEAD.replace(" ", "\t ").replace("+ x", "+\u200b x")).graph == plain
