"""Signature -> the text of one standalone Python file, the same to the byte on every run and machine.

The operators' namespace carries a digest of the text itself (with a mark in its place), so that two versions of
a file never share compiled graphs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection

from seqc.emit import convolution
from seqc.emit.beside import beside, with_imports
from seqc.emit.boundary import DIGEST, forms_text, operators_text
from seqc.emit.call import along_text, function_text, keys_text, result_text, step_text, written_text
from seqc.emit.dtypes import cast_text
from seqc.emit.edges import edge_places_text
from seqc.emit.elastic import dims_text, elastic
from seqc.emit.generate import generate_text
from seqc.emit.late_import import loader, marked, triton_text
from seqc.emit.misfits import misfits_text
from seqc.emit.module import module_text
from seqc.emit.pruning import pruned, pruning_text
from seqc.emit.shrinking import shrinking_text
from seqc.emit.signature import Signature
from seqc.emit.sizes import check
from seqc.emit.states_every import pieces_text, states_text
from seqc.emit.supports import supports_text
from seqc.emit.text import docstring, join, listed, section


def emit(sig: Signature) -> str:
    """The file. Raises Unsupported where two names meet, or a dim's size could not be known."""
    check(sig)
    common = tuple(dict.fromkeys(sig.torch.runtime))
    triton, gpu = _in_triton(sig, common)
    kernels = [triton, *gpu, *(part.alone for part in sig.backends.values())]
    texts = [*common, *gpu, *(part.text for part in sig.backends.values())]
    native = [x for x in sig.cpu.runtime if not any(x in text for text in texts)] if sig.cpu else []
    imports = [
        "from __future__ import annotations",
        "",
        *(["import contextlib"] if pruned(sig) else []),
        "import functools",
        "import math",
        *(["import warnings"] if any("warnings." in text for text in kernels) else []),
        "from collections.abc import Callable",
        "from typing import TYPE_CHECKING, NamedTuple",
        "",
        "import torch",
        "from torch import Tensor",
        "from torch.autograd import forward_ad",
        *(["", *sig.cpu.imports] if sig.cpu else []),
        "",
        "# What is called has types; kernels and operators have none that a checker could follow.",
        "# mypy: ignore-errors",
        "",
        listed("__all__", _public(sig)),
    ]
    loop = emit(sig.loop.sig) if sig.loop else ""
    text = join(
        "\n".join([*_head(sig), docstring([*(sig.doc or (sig.spec,)), "", *_CONTENTS]), "", *imports]),
        section("what to call", result_text(sig)),
        states_text(sig),
        function_text(sig, convolution.choice(sig)),
        step_text(sig),
        generate_text(sig) if sig.loop else "",
        module_text(sig),
        _WRAPPED.format(spec=sig.spec),
        section("the recurrence in plain torch: every device, every dtype", sig.torch.text),
        section("the recurrence in Triton: CUDA devices", triton) if triton else "",
        section("the recurrence in native code: CPUs", sig.cpu.text) if sig.cpu else "",
        section("the recurrence as a convolution", convolution.text(sig)) if sig.system else "",
        section("from a call to the recurrence: the same in every file, but for names and numbers", cast_text(sig)),
        *(made(sig) for made in (misfits_text, along_text, edge_places_text, pieces_text, written_text)),
        *(made(sig) for made in (supports_text, keys_text, pruning_text)),
        dims_text(sig) if pruned(sig) or elastic(sig) else "",
        shrinking_text(sig),
        *common,
        section("what kernels in Triton share: the same in every file", join(*gpu)) if gpu else "",
        section("the choice of a form", forms_text(sig)),
        section("the torch operators", operators_text(sig)),
        section("building and loading native code: the same in every file", join(*native)) if native else "",
    )
    if loop:
        text = with_imports(text, loop) + "\n\n" + section("the closed loop", beside(text, loop, "_loop")) + "\n"
    defined = Counter(_DEFINED.findall(text, text.index("\n# ----------")))
    assert len(defined) == defined.total(), f"{sig.spec}: defined twice: {[name for name, n in defined.items() if n > 1]}"
    return text.replace(DIGEST, hashlib.sha256(text.encode()).hexdigest()[: len(DIGEST)])


_DEFINED = re.compile(r"^(?:(?:def|class) (?=\w+[(:])|(?=\w+(?:: [^\n=]+)? = ))(\w+)", re.MULTILINE)
_CONTENTS = (
    "Below are what to call, and the recurrence on each kind of device. What follows these brings a call to them: packs,",
    "dtypes, errors, autograd, torch.compile.",
)


def _head(sig: Signature) -> list[str]:
    return [f"# {sig.header}"] if sig.header else []


def _in_triton(sig: Signature, known: Collection[str]) -> tuple[str, list[str]]:
    """(Triton's part, what it shares with those of other files). known: definitions that stand in the file anyhow."""
    if sig.triton is None:
        return "", []
    text = triton_text(sig.triton.text)
    return text, [loader(text), *(marked(x) for x in sig.triton.runtime if x not in known)]


def _public(sig: Signature) -> list[str]:
    names = [sig.class_name, f"{sig.class_name}Result", sig.spec, f"{sig.spec}_step"]
    names += [] if sig.no_step else [f"{sig.class_name}States"]
    names += [f"{sig.spec}_convolution"] if sig.system else []
    if sig.loop:
        names += [sig.loop.sig.class_name, f"{sig.loop.sig.class_name}Result", sig.loop.sig.spec, f"{sig.spec}_generate"]
    return [f'"{name}"' for name in names]


_WRAPPED = """
# torch.fx keeps a call as one node, instead of tracing into it
torch.fx.wrap("{spec}")
torch.fx.wrap("{spec}_step")
"""
