"""Layers of a network around a spec, for torch: `seqc.nn.layer("gla", d_model=256)`.

In: a spec, sizes, options. Out: a torch Module of the file that `seqc layer` writes, loaded. torch is imported by that file.
What a layer is made of follows from the spec's declarations: `docs/layers.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seqc import cache
from seqc.diagnostics import Source
from seqc.driver.load_emitted import load_emitted
from seqc.driver.options import Options
from seqc.frontend.sources import read

if TYPE_CHECKING:
    from seqc.driver.rates import Chain, Each, Residual, Slower

__all__ = ["Chain", "Each", "Residual", "Slower", "layer", "module", "source"]


def __getattr__(name: str) -> Any:
    """Load a class that needs torch."""
    if name not in ("Chain", "Each", "Residual", "Slower"):
        raise AttributeError(f"module 'seqc.nn' has no attribute {name!r}")
    from seqc.driver import rates

    return getattr(rates, name)


def layer(
    spec: str | Path,
    d_model: int,
    *,
    layers: int | None = None,
    backend: str = "auto",
    target: str = "sm_90",
    dims: Mapping[str, int] | None = None,
    given: Iterable[str] = (),
    **options: Any,
) -> Any:  # a torch.nn.Module, whose class is made at run time
    """A layer around a spec: [B, T, d_model] -> [B, T, d_model]. With `layers=N`, N of them with residuals and norms.

    spec: a `.seq` file, the name of a spec that ships with seqc, or a text. backend, target, dims: as of `seqc.compile`. given:
    inputs that every call gives, instead of a projection. options: sizes of the spec's dims and what the class takes (`conv`,
    `norm`, `gate`, `out`, `dropout`, `d_out`, `device`, `dtype`; of a stack `residual`). The cache is `layer.cache()`. Raises
    seqc.SpecError, seqc.Unsupported, and TypeError for an option that the layer has not.
    """
    found, name = _loaded(spec, backend, target, dims, given)
    if layers is None:
        return getattr(found, f"{name}Layer")(d_model, **options)
    return getattr(found, f"{name}Stack")(d_model, layers, **options)


def module(
    spec: str | Path, *, backend: str = "auto", target: str = "sm_90", dims: Mapping[str, int] | None = None,
    given: Iterable[str] = (),
) -> ModuleType:
    """The file of a layer as a module: the classes NAMECache, NAMELayer and NAMEStack, and the recurrence."""
    return _loaded(spec, backend, target, dims, given)[0]


def source(
    spec: str | Path, *, backend: str = "auto", target: str = "sm_90", dims: Mapping[str, int] | None = None,
    given: Iterable[str] = (),
) -> str:
    """The text of that file, what `seqc layer` writes."""
    return _file(spec, backend, target, dims, given)["text"]


def _loaded(
    spec: str | Path, backend: str, target: str, dims: Mapping[str, int] | None, given: Iterable[str]
) -> tuple[ModuleType, str]:
    """The module, and what its classes' names begin with."""
    made = _file(spec, backend, target, dims, given)
    return load_emitted(made["text"], made["spec"]), made["name"]


def _file(
    spec: str | Path, backend: str, target: str, dims: Mapping[str, int] | None, given: Iterable[str]
) -> dict[str, str]:
    """The file of what a caller gave, and its names."""
    return _made(read(spec), backend, target, tuple(sorted((dims or {}).items())), tuple(given))


@lru_cache(maxsize=128)
def _made(
    text: Source, backend: str, target: str, dims: tuple[tuple[str, int], ...], given: tuple[str, ...]
) -> dict[str, str]:
    """The file and its names, as an earlier process has kept them, or compiled now."""
    key = cache.key("layer", text.text, backend, target, dims, given)
    told = cache.recall(key)
    if told is None:
        from seqc.driver.layers.layer import compile_layer

        made = compile_layer(text, Options(backend, target, dict(dims)), given)
        told = {"text": made.text, "spec": made.plan.sig.spec, "name": made.plan.sig.class_name}
        cache.remember(key, told)
    return told
