"""The graph as text, and back: `parse(show(outputs))` gives the same nodes, not just equal ones.

In: outputs (key -> node). Out: one line per node, arguments first. One line is one of

    %q = input q [B, H, K]              a leaf: kind, name, axes in declared order; `@2` after the name is the offset,
    %valid = mask valid [t] bool        `bool` at the end its dtype
    %x = input x @0..63 by 1 over L [B, L]    many lags of an input, along the dim L
    %0 = exp(%q) : [B, H, K]            an operator: arguments are names or numbers; attributes come as `key=value`
    %1 = sum(%0) over=(K) : [B, H]      with value a number, true, false, a word, or a list of words in parentheses;
    out o = %1                          what follows `:` is checked, and may be left out
    # a comment, or an empty line

The dump after each pass and the tests of the passes are written in it. Malformed text raises IrError, which names the
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from seqc.ir.graph import Attr, Node, const, leaf, node, topological
from seqc.ir.ops import TABLE
from seqc.ir.windows import lags, window, window_of

NAME = r"[A-Za-z_][\w.@]*'*"
VALUE = r"[^\s(]+|\([^)]*\)"
LAGS = rf"(?: ?@(-?\d+)(?:\.\.(-?\d+) by (-?\d+) over ({NAME}))?)?"
LEAF = re.compile(rf"%(\S+) = (\w+) ({NAME}?){LAGS} \[([^\]]*)\](?: (bool|int))?")
APPLY = re.compile(rf"%(\S+) = (\w+)\(([^)]*)\)((?: \w+=(?:{VALUE}))*)(?: : (\[[^\]]*\](?: bool)?))?")
RESULT = re.compile(r"out (\S+) = (\S+)")


class IrError(ValueError):
    """Text that is no graph."""


def show(outputs: Mapping[str, Node], names: Mapping[Node, str] | None = None) -> str:
    """The graph below `outputs`; `names` are used for nodes that have one, numbers for the others."""
    called: dict[Node, str] = {}
    taken: set[str] = set()
    lines = []
    for n in topological(outputs.values()):
        if n.op == "const":
            called[n] = repr(n.attr("value"))
            continue
        called[n] = "%" + _name(n, (names or {}).get(n), taken)
        lines.append(f"{called[n]} = {_leaf(n) if n.op == 'leaf' else _apply(n, called)}")
    lines += [f"out {key} = {called[n]}" for key, n in outputs.items()]
    return "\n".join(lines) + "\n"


def _name(n: Node, given: str | None, taken: set[str]) -> str:
    wanted = given or (n.text("name") if n.op == "leaf" else "")
    offset = n.number("offset") if n.op == "leaf" else 0
    wanted = f"{wanted}@{offset}" if offset and not given else wanted
    if not wanted or wanted in taken or wanted.isdigit():
        wanted = str(next(i for i in range(len(taken) + 1) if str(i) not in taken))
    taken.add(wanted)
    return wanted


def _leaf(n: Node) -> str:
    offset = f" @{n.number('offset')}" if n.number("offset") else ""
    if window_of(n):
        offset = f" @{lags(n)[0]}..{lags(n)[-1]} by {lags(n).step} over {window_of(n)}"
    kind = "" if n.dtype == "real" else f" {n.dtype}"
    return f"{n.text('kind')} {n.text('name')}{offset} [{', '.join(n.names('shape'))}]{kind}"


def _apply(n: Node, called: Mapping[Node, str]) -> str:
    attrs = "".join(f" {key}={_attr(value)}" for key, value in n.attrs)
    kind = " bool" if n.dtype == "bool" else ""
    return f"{n.op}({', '.join(called[a] for a in n.args)}){attrs} : [{', '.join(n.dims)}]{kind}"


def _attr(value: Attr) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(value)})"
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(text: str) -> dict[str, Node]:
    """The outputs that the text describes."""
    known: dict[str, Node] = {}
    outputs: dict[str, Node] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        try:
            _line(line, known, outputs)
        except (IrError, AssertionError) as problem:
            raise IrError(f"line {number}: {problem or 'this node cannot be'}: {line}") from problem
    return outputs


def _line(line: str, known: dict[str, Node], outputs: dict[str, Node]) -> None:
    if found := RESULT.fullmatch(line):
        outputs[found[1]] = _value(found[2], known)
    elif found := APPLY.fullmatch(line):
        known[found[1]] = _applied(found, known)
    elif found := LEAF.fullmatch(line):
        dims, first = _words(found[8]), int(found[4] or 0)
        if found[7]:
            lags = range(first, int(found[5]) + int(found[6]), int(found[6]))
            known[found[1]] = window(found[3], tuple(d for d in dims if d != found[7]), found[7], lags)
        else:
            known[found[1]] = leaf(found[2], found[3], dims, first, found[9] or "real")
    else:
        raise IrError("not a line of the text form")


def _applied(found: re.Match[str], known: Mapping[str, Node]) -> Node:
    op = found[2]
    if op not in TABLE or op in ("leaf", "const"):
        raise IrError(f"unknown operator `{op}`")
    args = [_value(a, known) for a in _words(found[3])]
    if len(args) != TABLE[op].arity:
        raise IrError(f"`{op}` takes {TABLE[op].arity} arguments")
    attrs = {key: _attribute(value) for key, value in re.findall(rf"(\w+)=({VALUE})", found[4])}
    made = node(op, *args, **attrs)
    said = found[5]
    really = f"[{', '.join(made.dims)}]" + (" bool" if made.dtype == "bool" else "")
    if said is not None and said != really:
        raise IrError(f"this node is {really}")
    return made


def _value(word: str, known: Mapping[str, Node]) -> Node:
    if word.startswith("%"):
        if word[1:] not in known:
            raise IrError(f"`{word}` is not defined above")
        return known[word[1:]]
    number = _number(word)
    if number is None:
        raise IrError(f"`{word}` is neither a name nor a number")
    return const(number)


def _attribute(word: str) -> Attr:
    if word.startswith("("):
        return _words(word[1:-1])
    if word in ("true", "false"):
        return word == "true"
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    number = _number(word)
    return word if number is None else number


def _number(word: str) -> float | None:
    if not re.fullmatch(r"-?(inf|nan|\d+(\.\d*)?(e[-+]?\d+)?)", word):
        return None
    return float(word)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
