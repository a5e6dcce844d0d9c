"""Emitted text -> a module object, as if it had been imported. In: the text and a name to be known by. Out: the module.

The text is kept where tracebacks and Triton look for source, and the module where torch.compile looks for globals. A pickled
instance of one of its public classes brings the text along: where it arrives, in another process, the module is made again.
"""

from __future__ import annotations

import copyreg
import hashlib
import linecache
import sys
from functools import partial
from types import ModuleType
from typing import Any


def load_emitted(text: str, name: str) -> ModuleType:
    """The module of an emitted file's text; the same text and name give the same module.

    name: an identifier, by which the module is listed in `sys.modules` as `seqc_emitted_NAME_DIGEST`.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    full = f"seqc_emitted_{name}_{digest}"
    if full in sys.modules:
        return sys.modules[full]
    path = f"<{full}.py>"
    module = ModuleType(full)
    module.__file__ = path
    code = compile(text, path, "exec")
    # without a modification time the entry is never thrown away
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    sys.modules[full] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[full]
        raise
    for one in vars(module).values():
        if isinstance(one, type) and one.__module__ == full and not one.__name__.startswith("_"):
            copyreg.pickle(one, partial(_reduced, text, name))
    return module


def _reduced(text: str, name: str, instance: Any) -> tuple[Any, ...]:
    """What pickle keeps of an instance of a class of the text."""
    _, (kind, *given), *rest = instance.__reduce_ex__(2)
    return _restored, (text, name, kind.__name__, *given), *rest


def _restored(text: str, name: str, kind: str, *given: Any) -> Any:
    """The instance, without its state."""
    found = getattr(load_emitted(text, name), kind)
    return found.__new__(found, *given)
