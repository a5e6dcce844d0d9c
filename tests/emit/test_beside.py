"""Two files in one: what is alike is written once, and what is called alike and is not gets another name."""

from seqc.emit.beside import beside, with_imports

FIRST = '''"""One."""
import math

__all__ = ["one"]
KEPT = []
_LIMIT = 3


def _same(x):
    return min(x, _LIMIT)


def _other(x):
    return x + 1


def row(x):
    return KEPT


def one(x):
    """A row of x."""
    return _other(_same(x))
'''
SECOND = FIRST.replace('"one"', '"two"').replace("def one", "def two").replace("x + 1", "x + 2")
SECOND = SECOND.replace("import math", "import os")
SECOND = SECOND.replace("_other(_same(x))", '_other(_same(x)), f"{_other(x)}", x.row, row(x)')


def test_both_mean_what_they_meant() -> None:
    added = beside(FIRST, SECOND, "_b")
    text = with_imports(FIRST.replace("import math\n", "import math\nfrom torch.autograd import forward_ad\n"), SECOND)
    assert "forward_ad\nimport os\n" in text
    assert "_same" not in [line.split("(")[0].removeprefix("def ") for line in added.splitlines()], "alike: written once"
    assert "_LIMIT = " not in added
    assert "_b_KEPT = []" in added, "containers are never shared"
    assert "def _b_other(x):\n    return x + 2" in added
    assert "def _b_row(x):\n    return _b_KEPT" in added, "it reads what is not shared"
    assert '    """A row of x."""\n    return _b_other(_same(x)), f"{_b_other(x)}", x.row, _b_row(x)' in added
    room: dict[str, object] = {}
    exec(FIRST + "\n\n" + added.replace("x.row", "x.real"), room)
    assert room["one"](5) == 4 and room["two"](5)[:2] == (5, "7")  # type: ignore[operator]


def test_names_that_differ_by_a_line_in_front_stay_apart() -> None:
    first = "def one(x):\n    return x\n\n\ndef _one(x):\n    return -x\n"
    second = first.replace("return x", "return 2 * x").replace("return -x", "return -2 * x")
    room: dict[str, object] = {}
    exec(f"{first}\n\n{beside(first, second, '_b')}", room)
    made = {name: room[name](1) for name in room if name.startswith("_b")}  # type: ignore[operator]
    assert sorted(made.values()) == [-2, 2]
