"""The layout of the repository: folders, links and packaging agree, and imports point one way.

  diagnostics < ir < {semantics, analysis, frontend, emit, solver} < passes < backends < driver < {editor, check, api, nn, cli}

A room may import its own modules and those of the rooms that ALLOWED names. A pass imports no pass and a backend no
backend, except that a backend asks for lowerings (`passes/lower`), that a package's `__init__` may gather its own, that the
files of one folder know each other, and that any pass may simplify what it made. A heavy third-party package has one owner
module, which imports it late.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import seqc

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("backends", "grammar", "passes", "specs")

_BASE = {"grammar", "specs", "diagnostics", "files", "cache", "ir"}
_MIDDLE = _BASE | {"semantics", "analysis", "emit", "solver"}
_ALL = _MIDDLE | {"frontend", "passes", "backends", "driver", "editor", "check", "api", "cli"}

# room -> the other rooms that its modules may import.
ALLOWED = {
    "grammar": set(),
    "specs": set(),
    "diagnostics": set(),
    "cache": set(),
    "files": {"diagnostics"},
    "ir": {"diagnostics"},
    "analysis": {"diagnostics", "ir"},
    "semantics": {"diagnostics", "ir", "analysis"},
    "frontend": _BASE | {"analysis"},
    "emit": {"diagnostics", "ir"},
    "solver": {"diagnostics"},
    "passes": _MIDDLE - {"emit"},
    "backends": _MIDDLE - {"semantics"},
    "driver": _MIDDLE | {"frontend", "passes", "backends"},
    "editor": _MIDDLE | {"frontend", "passes", "driver", "seqc"},
    "check": _ALL - {"check", "api", "cli", "editor"},
    "api": _ALL - {"api", "cli"},
    "nn": _ALL - {"api", "cli"} | {"seqc"},
    "onnx": set(),
    "cli": _ALL - {"cli"} | {"seqc"},
    "seqc": _ALL,  # `__init__` and `__main__`
}

# third-party package -> the modules (or packages) that own it. Others reach it through them.
OWNERS = {
    "lark": ("seqc.frontend.parse",),
    "lsprotocol": ("seqc.editor.server",),
    "pygls": ("seqc.editor.server",),
    "pygments": ("seqc.editor.highlight",),
    "z3": ("seqc.solver",),
    "triton": ("seqc.backends.triton_gpu.tuning.toolchain_worker",),
    "torch": ("seqc.check", "seqc.driver.context_parallel", "seqc.driver.convolution", "seqc.driver.faces",
              "seqc.driver.rates", "seqc.driver.stream", "seqc.cli.commands.bench", "seqc.cli.commands.doctor", "seqc.onnx"),
}

# modules that exist for such a package alone: they import it at their top level, and are themselves imported late.
WHOLE = ("seqc.driver.context_parallel", "seqc.driver.rates", "seqc.driver.stream", "seqc.editor.highlight",
         "seqc.editor.server")


def modules() -> dict[str, Path]:
    """Every module of the import package by its dotted name, read from the real folders, not through the links."""
    found = {}
    for top in ("seqc", *MAPPED):
        base = ROOT / top
        for path in sorted(base.rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            if top == "seqc" and parts[0] in MAPPED:
                continue
            prefix = ("seqc",) if top == "seqc" else ("seqc", top)
            name = ".".join(prefix + parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room of a module of seqc: the first part of its name, or "seqc" for the package itself."""
    second = (module.split(".") + [""])[1]
    return second if second in ALLOWED else "seqc"


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[tuple[str, bool, int], ...]:
    """(imported dotted name, at the top level?, line) of every import in a module; typing-only imports are left out."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[tuple[str, bool, int]]:
    skipped: set[ast.AST] = set()
    late: set[ast.AST] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            skipped.update(child for part in node.body for child in ast.walk(part))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            late.update(ast.walk(node))
    for node in ast.walk(tree(module)):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in late, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in MODULES else node.module), node not in late, node.lineno


def within(module: str, owners: tuple[str, ...]) -> bool:
    """Whether a module is one of the owners, or lies in an owner that is a package."""
    return any(module == owner or module.startswith(owner + ".") for owner in owners)


def test_links_lead_to_the_folders() -> None:
    links = {path.name: path.readlink() for path in (ROOT / "seqc").iterdir() if path.is_symlink()}
    assert links == {name: Path("..") / name for name in MAPPED}
    assert all((ROOT / name).is_dir() for name in MAPPED)


LARGE = ("backends/triton_gpu", "backends/native_cpu", "backends/torch_eager", "seqc/frontend", "seqc/emit")


@pytest.mark.parametrize("room", LARGE)
def test_a_large_room_says_where_everything_is(room: str) -> None:
    """The docstring of its `__init__` names every module, `device_*` for those that begin so."""
    told = set(re.findall(r"\w+[*]?", ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""))
    begun = tuple(word[:-1] for word in told if word.endswith("_*"))
    missing = [path.stem for path in (ROOT / room).glob("*.py") if path.stem not in told and not path.stem.startswith(begun)]
    assert missing in ([], ["__init__"]), f"say in {room}/__init__.py where {missing} stand on the way of a spec"


def test_packaging_lists_every_package() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["package-dir"] == {"seqc": "seqc"} | {f"seqc.{name}": name for name in MAPPED}
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(setuptools["packages"]) == sorted(packages)


def test_no_room_hides_a_public_name() -> None:
    """`import seqc.ROOM` would put the room in the place of a function of that name."""
    assert not set(seqc.__all__) & set(ALLOWED)


def test_every_folder_of_modules_is_a_package() -> None:
    bare = {path.parent for path in MODULES.values() if not (path.parent / "__init__.py").exists()}
    assert not bare


def every_import() -> Iterator[tuple[str, str, bool, str]]:
    """(module, imported dotted name, at the top level?, words for the place)."""
    return ((x, name, top, f"{x}:{line} imports {name}") for x in MODULES for name, top, line in imports(x))


def test_imports_point_one_way() -> None:
    wrong = []
    for module, name, _, where in every_import():
        if name.split(".")[0] != "seqc":
            continue
        own, other = room(module), room(name)
        lowering = own == "backends" and name.startswith("seqc.passes.lower.")
        if other != own and other not in ALLOWED[own] and not lowering:
            wrong.append(f"{where}: {own} may not import {other}")
        if own in ("passes", "backends") and other == own and module != f"seqc.{own}":
            family = ".".join(module.split(".")[:3])
            if not name.startswith((family, "seqc.passes.simplify")):
                wrong.append(f"{where}: one of the {own} knows another")
    assert wrong == []


def test_heavy_packages_have_one_owner_and_come_late() -> None:
    wrong = []
    for module, name, top, where in every_import():
        owners = OWNERS.get(name.split(".")[0])
        if owners is not None and not within(module, owners):
            wrong.append(f"{where}, which belongs to {', '.join(owners)}")
        elif owners is not None and top and module not in WHOLE:
            wrong.append(f"{where} at its top level: import it where it is used")
    assert wrong == []


LINES = {"file": 400, "function": 60}


def test_files_and_functions_are_of_one_thought() -> None:
    """And of a complexity of 20 at the most, which ruff counts."""
    long = [x for x, path in MODULES.items() if path.read_text(encoding="utf-8").count("\n") > LINES["file"]]
    functions = ((x, n) for x in MODULES for n in ast.walk(tree(x)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    long += [f"{x}: {n.name}" for x, n in functions if (n.end_lineno or 0) - n.lineno >= LINES["function"]]
    assert long == []


OWNED = {  # text that one module writes and reads: everybody else asks it
    "seqc.ir.keys": ("}.next", "('.next", '(".next', "}.prev", "('.prev", '(".prev', 'f"d.', "f'd.", '("d.', "('d.", "key[2:]"),
    "seqc.ir.dims": ("rstrip(\"'\")", "endswith(\"'\")"),
}


@pytest.mark.parametrize("owner", OWNED)
def test_keys_and_dims_are_read_by_their_owner_alone(owner: str) -> None:
    code = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items() if name != owner}
    found = [(name, text) for name, source in code.items() for text in OWNED[owner] if text in source]
    assert found == []
