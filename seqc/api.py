"""The public functions: a spec compiled, loaded and callable; the oracle; the explanation.

In: a path or a text, options, arrays or tensors. Out: `Recurrence`, which is called like the emitted function. torch is
loaded by the emitted file itself, when it is first called; what only writes or explains never loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from seqc.build import load
from seqc.compiled import Compiled, Options, compile_spec
from seqc.load_emitted import load_emitted
from seqc.reference import run

__all__ = ["Recurrence", "compile", "explain", "oracle"]


class Recurrence:
    """A compiled spec. Calling it runs the recurrence over a sequence, as the emitted file's function does."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled

    @property
    def source(self) -> str:
        """The emitted file."""
        return self._compiled.text

    @cached_property
    def module(self) -> ModuleType:
        """The emitted file as a module, loaded when it is first needed."""
        return load_emitted(self.source, self._compiled.signature.spec)

    def __call__(self, *inputs: Any, **states: Any) -> Any:
        """Inputs, then params, in the spec's order or by name; NAME_0 for a state's initial value. A named tuple.

        cu_seqlens: the bounds of a pack's sequences; reverse: from the last step to the first (`docs/calls.md`). Names are
        the spec's or, where those are words of Python, the emitted ones: `gla(**{"lambda": x})` or `gla(lambda_=x)`.
        """
        return getattr(self.module, self._compiled.signature.spec)(*inputs, **self._emitted(states))

    def step(self, *inputs: Any, **states: Any) -> Any:
        """One step, without a time axis; states as `NAME_0`."""
        return getattr(self.module, f"{self._compiled.signature.spec}_step")(*inputs, **self._emitted(states))

    def _emitted(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by their emitted names."""
        names = {own: emitted for emitted, own in self._compiled.signature.renamed.items()}
        return {names.get(name, name): x for name, x in given.items()}

    @property
    def Module(self) -> Any:  # a class
        """The torch Module that owns the parameters."""
        return getattr(self.module, self._compiled.signature.class_name)

    def explain(self) -> str:
        """What was decided, and why; see `seqc.explain`."""
        from seqc.explanation import explanation

        return explanation(self._compiled)

    def save(self, path: str | Path) -> Path:
        """Write the emitted file, whole or not at all, and never over its spec. Raises a diagnostic where that fails."""
        from seqc.files import write

        return write(path, self.source, self._compiled.program.path)

    def __repr__(self) -> str:
        sig = self._compiled.signature
        forms = ", ".join(f"{part}: {block.form}" for part, block in self._compiled.blocks.items())
        return f"<seqc {sig.spec}({', '.join(sig.arguments)}) -> ({', '.join(sig.results)}); {forms}>"


def compile(
    spec: str | Path,
    backend: str = "auto",
    *,
    target: str = "sm_90",
    dims: Mapping[str, int] | None = None,
    form: str | None = None,
    rows: int | None = None,
) -> Recurrence:
    """The recurrence of a `.seq` file, or of a spec given as a string.

    backend: "auto" (every form that the spec can have, chosen by device at the call), "triton", "cpu" or "torch".
    target: the GPU that tiles are chosen for. dims: extents fixed at compile time. form ("step", "scan", "chunkwise")
    and rows (steps per block) override the compiler's choice. Raises seqc.SpecError and seqc.Unsupported.
    """
    return Recurrence(compile_spec(spec, Options(backend, target, dict(dims or {}), form, rows)))


def oracle(spec: str | Path, *, cu_seqlens: Any = None, reverse: bool = False, **arrays: Any) -> dict[str, Any]:
    """The recurrence step by step in float64 numpy: outputs NAME and final states NAME_T.

    arrays: inputs [B, T, dims], params [dims], initial states NAME_0 [B, dims]; numpy arrays or tensors. cu_seqlens: the
    bounds of a pack's sequences; reverse: from the last step to the first.
    """
    bounds = None if cu_seqlens is None else [int(bound) for bound in cu_seqlens]
    return run(load(spec), {name: _array(x) for name, x in arrays.items()}, bounds, reverse)


def explain(spec: str | Path, backend: str = "auto", *, target: str = "sm_90", dims: Mapping[str, int] | None = None,
            form: str | None = None, rows: int | None = None) -> str:
    """What the compiler decides for a spec, and why, as text. Options as for `compile`."""
    return compile(spec, backend, target=target, dims=dims, form=form, rows=rows).explain()


def _array(x: Any) -> Any:
    """A tensor as a float64 array; anything else as it is."""
    return x.detach().cpu().double().numpy() if hasattr(x, "detach") else x
