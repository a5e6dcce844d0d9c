"""How a compiled spec shows itself to Python: the signature and documentation of its function, arguments by name, texts that a
notebook draws. In: an emitted file's text, arguments. Out: `inspect.Signature`, checked arguments, strings.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from seqc.diagnostics import listing, near_miss

if TYPE_CHECKING:
    from seqc.driver.compile import Compiled

_KINDS = {"float": "a number", "int": "a number", "list": "a list", "tuple": "a tuple", "ndarray": "a numpy array"}


@dataclass(frozen=True)
class Face:
    """What is seen of a compiled spec without the compiler: the emitted file, and names.

    renamed: the spec's names by the emitted ones, where they differ; forms: of the file's parts ("torch", "cpu", "triton").
    """

    text: str
    spec: str
    class_name: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    renamed: Mapping[str, str]
    forms: Mapping[str, str]
    doc: str

    @staticmethod
    def of(compiled: Compiled) -> Face:
        """What is seen of what has just been compiled."""
        sig = compiled.signature
        forms = {part: block.form for part, block in compiled.blocks.items()}
        return Face(compiled.text, sig.spec, sig.class_name, tuple(sig.arguments), tuple(sig.results), dict(sig.renamed), forms,
                    compiled.program.doc.strip())


def head_of(text: str, name: str) -> ast.FunctionDef:
    """A function of an emitted file: its arguments and its documentation, without its body. It has documentation."""
    start = text.index(f"\ndef {name}(") + 1
    opening = text.index('"""', start)
    (found,) = ast.parse(text[start : text.index('"""', opening + 3) + 3]).body
    assert isinstance(found, ast.FunctionDef)
    return found


def signature_of(head: ast.FunctionDef) -> inspect.Signature:
    """The signature, annotations as they are written."""
    found = [_parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in head.args.args]
    for one, default in zip(head.args.kwonlyargs, head.args.kw_defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        found.append(_parameter(one, inspect.Parameter.KEYWORD_ONLY, value))
    result = ast.unparse(head.returns) if head.returns else inspect.Signature.empty
    return inspect.Signature(found, return_annotation=result)


def _parameter(one: ast.arg, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    annotation = ast.unparse(one.annotation) if one.annotation else inspect.Parameter.empty
    return inspect.Parameter(one.arg, kind, default=default, annotation=annotation)


def arguments(name: str, signature: inspect.Signature, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, each of its kind; a list is accepted for `cu_seqlens`. Raises TypeError with the name of the first
    that is missing, unknown, given twice, or of a wrong kind."""
    known = signature.parameters
    ordered = [one.name for one in known.values() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if len(given) > len(ordered):
        message = f"{name} takes {len(ordered)} arguments by position, and {len(given)} were given"
        raise TypeError(f"{message}: {_shown(name, signature)}")
    found = dict(zip(ordered, given, strict=False))
    for key, value in named.items():
        if key not in known:
            help = near_miss(key, known)
            raise TypeError(f"{name} has no argument `{key}`; {help or _shown(name, signature)}")
        if key in found:
            raise TypeError(f"{name}: `{key}` is given by position and by name: {_shown(name, signature)}")
        found[key] = value
    missing = [key for key in ordered if key not in found]
    if missing:
        raise TypeError(f"{name}: no {listing(missing, 'and no')} given: {_shown(name, signature)}")
    plain = {x for x in ("seed", "steps", "given") if x in known and known[x].kind is inspect.Parameter.KEYWORD_ONLY}
    return {key: value if key in plain and _is_plain(key, value) else _of_its_kind(name, key, value, found)
            for key, value in found.items()}


def _is_plain(key: str, value: Any) -> bool:
    whole = key != "given" and isinstance(value, int) and not isinstance(value, bool)
    return whole or (value is None and key != "steps")


def _shown(name: str, signature: inspect.Signature) -> str:
    """The call as one writes it, without annotations."""
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return f"{name}{inspect.Signature(plain)}"


def _of_its_kind(name: str, key: str, value: Any, found: Mapping[str, Any]) -> Any:
    import torch

    if key in ("reverse", "inplace"):
        if not isinstance(value, bool):
            raise TypeError(f"{name}: {key} is True or False, not {_kind(value)}")
        return value
    if key == "into":
        if value is not None and not hasattr(value, "_fields"):
            raise TypeError(f"{name}: into is the result of an earlier step, not {_kind(value)}")
        return value
    if key in ("axis", "states_every"):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name}: {key} is a whole number, not {_kind(value)}")
        return value
    if isinstance(value, torch.Tensor) or (value is None and (key == "cu_seqlens" or key.endswith("_0"))):
        return value
    if key == "cu_seqlens" and isinstance(value, list | tuple) and all(isinstance(bound, int) for bound in value):
        device = next((x.device for x in found.values() if isinstance(x, torch.Tensor)), None)
        return torch.tensor(value, dtype=torch.int64, device=device)
    made = {"ndarray": f"torch.from_numpy({key})", "list": f"torch.tensor({key})", "tuple": f"torch.tensor({key})"}
    help = f": write {made[type(value).__name__]}" if type(value).__name__ in made else ""
    raise TypeError(f"{name}: {key} is {_kind(value)}, and it takes a torch.Tensor{help}")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value).__name__, "None" if value is None else f"a {type(value).__name__}")


class Text(str):
    """A text of several lines that a notebook shows as it is laid out."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self)}</pre>"


class Picture(str):
    """A graph in the DOT language, drawn in notebooks: by Graphviz where that is installed, else as `drawn`."""

    drawn: str

    def _repr_svg_(self) -> str:
        from seqc.ir.dot import svg

        return svg(self) or self.drawn


class OfTheInstance:
    """An attribute that Python's own tools look for on a callable: each instance has its own, and the class has `default`."""

    def __init__(self, read: Callable[[Any], Any], default: Any = None) -> None:
        self.read, self.default = read, default

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            return self.read(instance)
        if self.default is None:
            raise AttributeError("only a compiled spec has it")
        return self.default
