"""One backend's part of an emitted file as a module of its own, for tests that print no whole file."""

from __future__ import annotations

from types import ModuleType

from seqc.driver.load_emitted import load_emitted
from seqc.emit.names import module_name, safe_name
from seqc.ir.program import Program


def loaded(text: str, program: Program, name: str) -> ModuleType:
    """The part, after what a file has before it: its imports, and the class of its results."""
    result = f"{module_name(program)}Result"
    fields = [safe_name(x) for x in (*program.output_decls, *(f"{state}_T" for state in program.states))]
    head = f"import math\nfrom collections import namedtuple\nimport torch\n{result} = namedtuple({result!r}, {fields!r})\n"
    return load_emitted(f"from __future__ import annotations\n{head}{text}", name)
