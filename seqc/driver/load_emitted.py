"""Emitted text -> a module object, as if it had been imported. In: the text and a name to be known by. Out: the module.

The text is kept where tracebacks and Triton look for source, and the module where torch.compile looks for globals.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
from types import ModuleType


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
    return module
