"""What people bring from Python, LaTeX, papers and other tools, and how a spec says it.

In: a line with a place where the parser stopped, the first words of a line that begins no statement, or a name that nothing
declares. Out: what to write instead, or "" where nothing better is known than the message itself. Only advice is given here:
whether something is wrong is decided elsewhere, and no text is changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from seqc.frontend.functions import FUNCTIONS
from seqc.frontend.idioms_functions import ELSEWHERE

TRANSPOSED = "a transpose is a renaming: `S[K -> K', K' -> K]`; `sum[K](W * x)` contracts any dim of W"
_HERE = "a bare name is the value now"
_BRACKETS = "subscripts and powers have no braces: `S[t-1]` is the value one step ago, `x^(2 + a)` a power"
_QUOTES = 'a text is only possible as documentation, in `"""` after the name of the spec'
_DEFINED = "a definition is a line `NAME = ...`, without arguments"
_COMMENT = "comments begin with `#`"
_DIMS = "dims stand in square brackets: `input x[D]`"
_RANGE = "a range is written `in [lo, hi]`, such as `in [-inf, 0]`"
_STEPS = ("a spec says one step, and steps follow each other by themselves; steps within a step are "
          "`fold[J](start, S -> EXPR)`")

CHARACTERS = {  # a character that no spec has -> what to write
    **dict.fromkeys("×·⋅∙•⊙∘∗⊛", "a product is written `*`, element by element"),
    **dict.fromkeys("⊗", "an outer product is written `*`: values with different dims spread"),
    **dict.fromkeys("−–—‐‑‒", "a minus sign is written `-`"),
    **dict.fromkeys("÷∕⁄", "a division is written `/`"),
    "≤": "write `<=`", "≥": "write `>=`", "≠": "write `!=`", "≈": "write a comparison of a difference, `abs(a - b) < 0.01`",
    "∧": "write `and`", "∨": "write `or`", "¬": "write `not`", "∞": "write `inf`", "√": "write `sqrt(x)`",
    "∑": "write `sum[K](x)`", "∏": "over a dim of fixed size, `prod[N](x)`",
    "←": "a definition is written `NAME = ...`", "≔": "a definition is written `NAME = ...`", "≡": "write `=`, or `==`",
    "→": "write `->`", "↦": "write `->`", "∈": "a range is written `in [lo, hi]`",
    "⊤": TRANSPOSED, "†": TRANSPOSED, "‖": "a norm is written `norm[K](x)`",
    **dict.fromkeys("“”„‟«»", _QUOTES), **dict.fromkeys("‘’‚‛`", "names and values stand without quotes"),
    **dict.fromkeys("′″", "a further dim of the same size has a plain apostrophe: `K'`"),
    "…": "a range of sizes is written `1..8`", "?": "a choice is written `where(condition, a, b)`",
    ";": "a line is a statement, without `;` at its end", "$": "formulas stand without `$`",
    "~": "`~` says nothing here: a value is given with `=`, the opposite of a condition is `not c`",
    "!": "the opposite of a condition is written `not c`", "{": _BRACKETS, "}": _BRACKETS,
}

STATEMENTS_ELSEWHERE = {  # first words of lines -> what to write
    **dict.fromkeys(("for", "while", "repeat", "loop"), _STEPS),
    **dict.fromkeys(("end", "endif", "endfor", "done", "begin", "pass"), "a statement ends with its line: leave it out"),
    **dict.fromkeys(("def", "fn", "func", "function", "class", "macro"), _DEFINED),
    **dict.fromkeys(("if", "elif", "else", "switch", "case"), "a choice is a value: `x = where(condition, a, b)`"),
    **dict.fromkeys(("return", "yield", "emit"), "a result is written `output o = ...`"),
    **dict.fromkeys(("import", "from", "include", "using"), "nothing is imported: functions are there by name, `tanh(x)`"),
    **dict.fromkeys(("let", "var", "val", "auto", "float", "real", "double", "tensor"), "a definition is a line `NAME = ...`"),
    **dict.fromkeys(("print", "assert"), "a value is seen where it is an output: `output o = ...`"),
    **dict.fromkeys(("parameter", "parameters", "weight", "weights", "learnable"), "write `param W[M, D]`"),
    **dict.fromkeys(("constant", "constants"), "write `const c = ...`"),
    **dict.fromkeys(("inputs",), "write `input x[D], y[D]`"),
    **dict.fromkeys(("states", "carry", "hidden"), "write `state h[D] = 0`"),
    **dict.fromkeys(("outputs", "out", "result"), "write `output o = ...`, a line for each"),
    **dict.fromkeys(("dims", "dimension", "dimensions", "size", "sizes", "shape"), "write `dim H, K, V`"),
    "lambda": _DEFINED,
    "init": "an initial value stands where the state is declared: `state h[D] = 0`, `param W[M, D] init 0.1`",
    "range": "a range stands where a value is declared: `input g[H] in [-inf, 0]`",
    "chunk": "write `schedule chunk {32, 64}`",
}

_NAMES = {  # names of values -> what to write
    "T": "the number of steps is not known within a step; a state counts those before, `n = n[t-1] + 1`",
    "B": "the batch is never written, and its size is not known within a step",
    "e": "write `exp(x)`; the number itself is `exp(1)`", "I": "the identity is `eye[K]`",
    "π": "write `pi`", "PI": "write `pi`",
    "True": "write 1", "true": "write 1", "False": "write 0", "false": "write 0", "None": "leave it out",
    "zeros": "write 0: it stands for every element", "ones": "write 1: it stands for every element",
    **dict.fromkeys(("nan", "NaN", "NAN"), "no number of a spec is undefined; choose with `where(condition, a, b)`"),
    **dict.fromkeys(("Inf", "INF", "infinity", "Infinity"), "write `inf`"),
    **dict.fromkeys(("eps", "epsilon", "ε"), "write the number, such as 1e-6"),
    "not": "`not` stands before a name, a number or a bracket: `not (x > 0)`",
    **dict.fromkeys(("lambda", "yield", "return"), "a definition is a line `NAME = ...`"),
}

_OF_VALUES = {  # what is called on a value in Python -> what to write
    **dict.fromkeys(("T", "mT", "H", "transpose", "t", "permute", "swapaxes", "movedim"), TRANSPOSED),
    **dict.fromkeys(("unsqueeze", "squeeze", "view", "reshape", "expand", "flatten", "repeat", "broadcast_to"),
                    "dims have names, and values spread by name: nothing is reshaped"),
    **dict.fromkeys(("shape", "size", "ndim"), "the size of a dim is its bare name: `K`"),
    **dict.fromkeys(("detach", "stop_gradient"), "write `stopgrad(x)`"),
    **dict.fromkeys(("item", "float", "to", "cuda", "cpu", "half", "clone", "copy"), "values have no type: leave it out"),
    **dict.fromkeys(("matmul", "mm", "bmm", "dot", "mv", "outer", "einsum"), ELSEWHERE["einsum"]),
    **dict.fromkeys(("scan", "while_loop", "fori_loop", "map"), _STEPS),
    **dict.fromkeys(("vmap", "pmap"), "the batch is never written: a spec says what one sequence does"),
}
_MODULES = r"(torch|np|numpy|jnp|jax|lax|nn|F|functional|math|tf|special|linalg|mx|scipy|K|layers|keras|Flux)"
_NUMBERS = {"pi": "write `pi`", "inf": "write `inf`", "e": "write `exp(1)`", "nan": _NAMES["nan"]}
_REDUCING = ("sum", "mean", "max", "min", "norm", "softmax", "logsumexp", "var", "std", "amax", "amin")

_FOREIGN = (  # at the place where the parser stopped -> what to write
    (r"\*\*", "a power is written with `^`"),
    (r"(if|else)\b", "a choice is written `where(condition, a, b)`"),
    (r"&&?", "write `and`"),
    (r"\|\|", "write `or`"),
    (r"\|", "write `or` between conditions, `abs(x)` for a size, `norm[K](x)` for a norm"),
    (r":=|<-", "a definition is written `NAME = ...`"),
    (r"[-+*/]=", "a definition is written `NAME = ...`; a state grows by `h = h[t-1] + x`"),
    (r"/\*", _COMMENT),
    (r"//", "comments begin with `#`, and a division is a single `/`; rounded down it is `floor(a / b)`"),
    (r"%(?!\s*%)(?=\s*[\w(])", f"a remainder is written `mod(a, b)`; {_COMMENT}"),
    (r"%", _COMMENT),
    (r"=(?!=)", "a comparison is written `==`"),
    (r"[<>]=?|==|!=", "comparisons do not chain: write two, joined by `and`"),
    (r"\"|'", _QUOTES),
    (r"\\[cx]?d?ot\b|\\times\b|\\odot\b|\\circ\b", "a product is written `*`"),
    (r"\\d?t?frac\b", "a fraction is written `a / b`"),
    (r"\\sum(?![A-Za-z])", "write `sum[K](x)`"),
    (r"\\sigma\s*\(", "write `sigmoid(x)`"),
    (r"\\(top|intercal)\b", TRANSPOSED),
    (r"\\(?P<word>[A-Za-z]+)", "names stand without a backslash: `{word}`"),
    (r"\\", "a line goes on while a bracket is open or after an operator, without a backslash"),
)
_VALUES = {  # declarations that take no `=` -> what to write
    "param": "a param begins with `init`: `param {name} init 0.5`; what is never trained is `const {name} = 0.5`",
    "buffer": "a buffer begins with `init`: `buffer {name} init 0`",
    "input": "an input is given at every step, and has no value of its own; what never changes is a `const` or `param`",
}
_FIRST = (  # what a line says in front of its first word's rest -> what to write
    (r"([^\W\d]\w*?)_(\{[^}]*\}|\w+)?\s*=(?!=)", "the left side is the value now, without a subscript: `{0} = ...`"),
    (r"([^\W\d]\w*)\s*\((t|n|k|i)\)\s*=(?!=)", "the left side is the value now: `{0} = ...`"),
    (r"([^\W\d]\w*)'+\s*=(?!=)", "the left side is the value now: `{0} = ...`, and `{0}[t-1]` is its value one step ago"),
    (r"([^\W\d]\w*)\s*(:=|<-|←|≔)", "a definition is written `{0} = ...`"),
    (r"([^\W\d]\w*)\s*([-+*/])=", "a definition is written `{0} = ...`; where it is a state, `{0} = {0}[t-1] {1} ...`"),
    (r"([^\W\d]\w*)\s*~", "a value is given with `=`; noise is drawn: `e = normal[D]()`"),
    (r"([^\W\d]\w*)\s*==", "a definition is written with one `=`: `{0} = ...`"),
    (r"\(([^\W\d]\w*)\s*,[^=()]*\)\s*=(?!=)", "names stand without brackets, before a `fold`: `a, b = fold[J](..)`"),
    (r"([^\W\d]\w*)\s*:\s*\w+.*=(?!=)", "values have no types: `{0} = ...`"),
)


def at_stop(text: str, at: int) -> str:
    """What to write instead of what stands at `at`, where the parser stopped in a line."""
    before, rest = text[:at], text[at:]
    placed = _declaring(before, rest) or _in_context(before, rest)
    return placed or _by_pattern(text, at) or _by_character(rest) or _side_by_side(before, rest)


def first_words(text: str) -> str:
    """What to write instead of a line that begins no statement."""
    word = re.match(r"\w*", text)
    assert word is not None
    if re.match(r"%|;\s", text):
        return _COMMENT
    if re.match(r"(if|elif|else|for|while)\b", text):
        return STATEMENTS_ELSEWHERE[word.group()]
    for pattern, advice in _FIRST:
        if match := re.match(pattern, text):
            return advice.format(*match.groups())
    return STATEMENTS_ELSEWHERE.get(word.group()) or STATEMENTS_ELSEWHERE.get(word.group().lower(), "") or (
        "" if word.group() else _by_pattern(text, 0) or _by_character(text))


def name_advice(word: str, known: Collection[str], axis: str) -> str:
    """What to write instead of a name that nothing declares."""
    for pattern, advice in (
        (r"(.+?)_?(prev|previous|last|old|past|tm1|t_1|minus_?1)", "the value one step ago is `{0}[{1}-1]`"),
        (rf"(.+?)_?(new|next|now|cur|current)|(.+?)_{axis}", f"{_HERE}: write `{{0}}`, and `{{0}}[{{1}}-1]` for one step ago"),
        (r"(.+?)_?(0|init)", "an initial value stands where the state is declared: `state {0} = ...`"),
        (r"(.+?)²", "write `{0}^2`"),
        (r"(.+?)³", "write `{0}^3`"),
        (r"(.+?)ᵀ", TRANSPOSED),
        (r"(.+?)ₜ", f"{_HERE}: write `{{0}}`, and `{{0}}[{{1}}-1]` for one step ago"),
        (r"(.+?)'+", "a prime marks a further dim of the same size; " + TRANSPOSED),
    ):
        match = re.fullmatch(pattern, word)
        base = next((group for group in match.groups() if group), "") if match else ""
        if base in known:
            return advice.format(base, axis)
    return "" if word in known else _NAMES.get(word, "")


def function_advice(word: str, dims: Collection[str]) -> str:
    """What to write instead of a function that is not there."""
    match = re.fullmatch(rf"({'|'.join(_REDUCING)})_(\w+)", word)
    if match:
        dim = next((dim for dim in dims if dim.lower() == match.group(2).lower()), "K")
        return f"write `{match.group(1)}[{dim}](x)`"
    return ELSEWHERE.get(word) or ELSEWHERE.get(word.lower(), "")


def _declaring(before: str, rest: str) -> str:
    """Advice for a place in a declaration."""
    if re.match(r"spec\s", before):
        return "" if rest.startswith(("'", '"', ":")) else "a name is made of letters, digits and `_`: `spec my_cell`"
    if re.match(r"dim\s.*=[^,]*$", before) and "{" not in before:
        return "a size is a whole number, or a choice of them: `dim K = 64`, `dim K {32, 64}`"
    if not re.match(r"(input|param|buffer|state|output)\s", before) or "=" in before:
        return ""
    if re.search(r"\bin\s*$", before) or re.match(r"[<>]=?\s*[-\d(]", rest):
        return _RANGE
    if re.search(r"\[[^\]]*$", before) and re.match(r"\d", rest) and " in " not in before:
        return "dims have names, and sizes stand with them: `dim D = 64`, then `input x[D]`"
    return _DIMS if re.match(r"[<{]", rest) else ""


def _in_context(before: str, rest: str) -> str:
    """Advice that needs what stands in front of the place."""
    if re.match(r"\.\s*[-+*/^(<>=]", rest):
        return "operators and functions work on each element, without a dot: `a * b`, `tanh(x)`"
    if re.search(r"(?<![\w.])\d+$", before) and re.match(r",\d", rest):
        return "a decimal point is a dot: `0.5`"
    if rest.startswith("[") and (match := re.search(r"(\w+)\s*\($", before)):
        return function_advice(match.group(1), ()) or "there are no lists: arguments stand beside each other, `f(a, b)`"
    if rest.startswith("(") and (match := re.search(r"(\w+)\s*\([^()]*\)\s*$", before)):
        reducing = match.group(1) in _REDUCING
        return f"dims stand in square brackets: `{match.group(1)}[K](x)`" if reducing else function_advice(match.group(1), ())
    if rest.startswith(("₋", "₊")) and (match := re.search(r"([^\W\d]\w*?)ₜ?$", before)):
        return f"the value one step ago is written `{match.group(1)}[t-1]`"
    if re.match(r"=(?!=)", rest) and (match := re.match(rf"({'|'.join(_VALUES)})\b.*?(\w+(\[[^][]*\])?)\s*$", before)):
        return _VALUES[match.group(1)].replace("{name}", match.group(2))
    if re.match(r"for\b", rest):
        return f"a sum over a dim is `sum[K](x)`; {_STEPS}"
    if rest.startswith("{"):
        return _braces(before, rest)
    defined = re.match(r"(\[|=?[^=])*\]\s*=(?!=)", rest)
    if defined and (match := re.match(r"([^\W\d]\w*)\s*\[[^][]*$", before)):
        name = match.group(1)
        if re.match(r"=?\s*-?\d+\s*\]", rest):
            return f"one place of a dim is chosen by `{name} = where(index[K] == 0, ..., {name}[t-1])`"
        return f"names stand on the left: name the place on a line of its own, `at = ...`, and write `{name}[at] = ...`"
    if rest.startswith(("'", '"')) and re.search(r"\b(einsum|rearrange|reduce|contract)\s*\($", before):
        return ELSEWHERE["einsum"]
    if rest.startswith("=") and re.search(r"\b(dim|axis|axes|keepdims?|over)\s*$", before):
        return "dims stand in brackets behind the function: `sum[K](x)`"
    if rest.startswith(":"):
        if re.search(r"\[\s*t\b[^][]*$", before):
            return "the last steps together are taps: `sum[L](w * x[t - index[L]])`"
        if before.count("[") > before.count("]"):
            return "one position of a dim is `x[K = 1]`; what is cut apart is declared apart, as values or as a dim of its own"
        return "values and blocks have no `:`; statements end with their line"
    if match := re.match(r"\.\s*(\w+)", rest):
        return _attribute(before, rest, match.group(1))
    if rest.startswith(".") and before.count("[") > before.count("]"):
        return "one position of a dim is `x[K = 1]`; all others stay as they are"
    return ""


def _braces(before: str, rest: str) -> str:
    inside = rest[1 : rest.find("}")] if "}" in rest else ""
    if match := re.search(rf"({'|'.join(_REDUCING)}|prod)_$", before):
        return f"write `{match.group(1)}[K](x)`, with the dim in brackets"
    if match := re.search(r"([^\W\d]\w*)_$", before):
        name, time = match.group(1), inside.replace(" ", "")
        if re.fullmatch(r"\w[-+]\d+", time):
            sign = "one step ago" if time[1:] == "-1" else f"at {time}"
            return f"the value {sign} is written `{name}[t{time[1:]}]`"
        return f"{_HERE}: write `{name}`, and `{name}[t-1]` for one step ago"
    if re.search(r"(?<!\w)e\s*\^$", before):
        return f"write `exp({inside or 'x'})`"
    if before.rstrip().endswith("^"):
        return TRANSPOSED if inside.strip() in ("T", r"\top") else f"a power has round brackets: `^({inside or 'x'})`"
    return ""


def _attribute(before: str, rest: str, name: str) -> str:
    """Advice for `.name`."""
    called = re.match(r"(\.\s*\w+)*?\.\s*(\w+)\s*\(", rest)
    last = called.group(2) if called else name
    if last in _OF_VALUES:
        return _OF_VALUES[last]
    if last in _REDUCING:
        return f"the dims are named: `{last}[K](x)`"
    if re.search(rf"\b{_MODULES}$", before) and not called and last in _NUMBERS:
        return _NUMBERS[last]
    if re.search(rf"\b{_MODULES}$", before) and called:
        there = f"`{last}(...)`" if last in FUNCTIONS else f"none is called `{last}`"
        return f"functions stand by themselves: {function_advice(last, ()) or there}"
    return "names have no attributes; functions are called as `f(x)`"


def _by_pattern(text: str, at: int) -> str:
    for start in (at, at - 1):  # an operator of two characters may be refused at its second
        for pattern, advice in _FOREIGN:
            if start >= 0 and (match := re.match(pattern, text[start:])) and start + match.end() > at:
                return advice.replace("{word}", match.groupdict().get("word") or "")
    return ""


def _by_character(rest: str) -> str:
    if not rest:
        return ""
    char = rest[0]
    if char in CHARACTERS:
        return CHARACTERS[char]
    plain = unicodedata.normalize("NFKC", char)
    return f"write `{plain}`" if plain != char and plain.isascii() and plain.strip() else ""


def _side_by_side(before: str, rest: str) -> str:
    """Advice for two values without an operator between them."""
    previous = re.search(r"([\w'.]+|[)\]])\s*$", before)
    if previous is None or not re.match(r"[\w(]", rest):
        return ""
    if re.fullmatch(r"output\s*", before):
        return STATEMENTS_ELSEWHERE["return"]
    if "=" not in before and (word := re.match(r"(dim|input|param|const|state|axis)\b", before)):
        if rest.startswith("("):
            return f"dims stand in square brackets: `{word.group()} x[D]`"
        return f"names are separated by commas: `{word.group()} a, b`"
    left, right = previous.group(1), re.match(r"\w+", rest)
    if right and right.group() in ("f", "F", "d", "L") and re.fullmatch(r"[\d.]+", left):
        return f"a number has no suffix: `{left}`"
    if left == "lambda":
        return _DEFINED
    if right is None or left in ")]":
        return "a product is written `a * b`, a matrix product `A @ x`"
    if left in FUNCTIONS:
        return f"arguments stand in round brackets: `{left}({right.group()})`"
    if left.isdecimal() and right.group().startswith("_"):
        return "digits have nothing between them: `10000`, or `1e4`"
    matrix = "" if left[0].isdigit() or left[0] == "." else f", a matrix product `{left} @ {right.group()}`"
    return f"a product is written `{left} * {right.group()}`{matrix}"
