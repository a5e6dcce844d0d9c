"""Two emitted files in one: the second behind the first, with new names for what both call alike and is not the same.

In: two texts. Out: what of the second is to follow the first. A definition that both have alike, with all that it calls, is
written once; containers are never shared, for they are filled while the file is loaded or used. The second file's documentation
and imports are left out: `with_imports` adds those that the first lacks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from io import StringIO
from token import NAME
from tokenize import generate_tokens

from seqc.ir.traverse import reached

_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*")
_FILLED = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


@dataclass(frozen=True)
class Chunk:
    """A statement of a file's top level with the comments above it. names: what it binds; kind: "constant", "container" (it is
    never shared), or "" for what is shared where all that it mentions is."""

    text: str
    names: tuple[str, ...]
    kind: str


def beside(first: str, second: str, mark: str) -> str:
    """The text of the second file behind the first. mark: what a name begins with that both have for different things."""
    mine, own = chunks(first), chunks(second)
    have = {name: chunk.text for chunk in mine for name in chunk.names}
    alike = _alike(own, have)
    clashes = {name for chunk in own for name in chunk.names if name in have and name not in alike}
    taken = have.keys() | {name for chunk in own for name in chunk.names}
    table = dict[str, str]()
    for name in sorted(clashes):  # `_x` and `x` would get the same name
        table[name] = _fresh(mark + name if name[0] == "_" else f"{mark}_{name}", taken | set(table.values()))
    kept = [chunk for chunk in own if not chunk.names or not set(chunk.names) <= alike]
    return "\n\n\n".join(renamed(chunk.text, table) for chunk in kept)


def with_imports(first: str, second: str) -> str:
    """The first text, with the imports of the second that it lacks."""
    known = set(first.splitlines())
    missing = [line for line in second.splitlines() if line.startswith(("import ", "from ")) and line not in known]
    last = "\nfrom torch.autograd import forward_ad\n"
    return first.replace(last, last + "".join(f"{line}\n" for line in missing), 1)


def chunks(text: str) -> list[Chunk]:
    """The statements of a file, but for its documentation, imports and `__all__`."""
    lines = text.splitlines()
    out, end = [], 0
    for n in ast.parse(text).body:
        start = min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]) - 1
        above = [line for line in lines[end:start] if line.startswith("#") and not line.startswith("# ----------")]
        end = n.end_lineno or n.lineno
        if isinstance(n, ast.Import | ast.ImportFrom) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)):
            continue
        names = _bound(n)
        if names != ("__all__",):
            value = getattr(n, "value", None)
            kind = "constant" if isinstance(value, ast.Constant) else "container" if isinstance(value, _FILLED) else ""
            out.append(Chunk("\n".join([*above, *lines[start:end]]), names, kind))
    return out


def reaching(text: str, roots: Iterable[str]) -> str:
    """What of a text some of its names need, and no other definition."""
    every = chunks(text)
    of = {name: chunk for chunk in every for name in chunk.names}
    kept = reached((name for name in roots if name in of), lambda name: of.keys() & set(_WORD.findall(of[name].text)))
    return "\n\n\n".join(chunk.text for chunk in every if kept.keys() & {*chunk.names}) + "\n"


def _bound(n: ast.stmt) -> tuple[str, ...]:
    match n:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Assign(targets=targets):
            return tuple(x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
    return ()


def _alike(own: list[Chunk], have: Mapping[str, str]) -> set[str]:
    """The names that mean the same in both files: alike in text, and in all that they mention."""
    bound = {name for chunk in own for name in chunk.names}
    alike = {name for c in own if c.kind != "container" for name in c.names if all(have.get(x) == c.text for x in c.names)}
    mentioned = {c.names: bound & set(_WORD.findall(c.text)) if c.kind != "constant" else set(c.names) for c in own}
    while True:
        kept = {name for c in own for name in c.names if name in alike and mentioned[c.names] <= alike}
        if kept == alike:
            return alike
        alike = kept


def _fresh(wish: str, taken: Set[str]) -> str:
    while wish in taken:
        wish += "_"
    return wish


def renamed(text: str, table: Mapping[str, str]) -> str:
    """The text with names changed: those that begin with `_` wherever they stand, others where they are no part of a string."""
    own = {old: new for old, new in table.items() if old[0] == "_"}
    text = _WORD.sub(lambda found: own.get(found[0], found[0]), text)
    others = {old: new for old, new in table.items() if old[0] != "_"}
    if not others.keys() & set(_WORD.findall(text)):
        return text
    lines = text.splitlines(keepends=True)
    before = ""
    places = []
    for token in generate_tokens(StringIO(text).readline):
        if token.type == NAME and token.string in others and before != ".":
            places.append((token.start, token.string))
        before = token.string
    for (row, column), word in reversed(places):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + others[word] + line[column + len(word) :]
    return "".join(lines)
