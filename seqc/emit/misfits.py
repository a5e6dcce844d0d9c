"""Calls that do not fit what they call, in an emitted file: errors that name the argument, what it takes and what came.

In: a signature. Out: the text of these errors, and the lines that put them around what a person calls. A call that fits pays
for a function in between; a step for decoding has none in between, and names what is no tensor alone.
"""

from __future__ import annotations

from seqc.emit.module import telling
from seqc.emit.signature import Signature
from seqc.emit.text import join


def misfits_text(sig: Signature) -> str:
    """The functions, then the lines that wrap."""
    text = join(_MISFITS, _AS_MADE if telling(sig) else "")
    own = sig.class_name
    called = [sig.spec, *([f"{sig.spec}_generate"] if sig.loop else []), f"{own}.__init__"]
    wrapped = [f"    {name} = _named({name})" for name in called]
    wrapped.append(f"    {own}.__call__ = _named({own}.forward, True)")
    return "\n".join([text, "", "if not TYPE_CHECKING:", *wrapped])


_MISFITS = '''
def _named(function, module=False):
    """The function, or the call of a Module with this `forward`, whose errors name the argument that does not fit."""

    @functools.wraps(function)
    def call(*given, **named):
        try:
            return (torch.nn.Module.__call__ if module else function)(*given, **named)
        except (AttributeError, TypeError):
            _check_call(function, given, named)
            raise

    return call


def _check_call(function, given, named):
    """TypeError where an argument is unknown, missing, given twice or no tensor."""
    import inspect

    head, who = inspect.signature(function), function.__qualname__.removesuffix(".forward").removesuffix(".__init__")
    known = {name: x for name, x in head.parameters.items() if name != "self"}
    takes = ", ".join(f"{x} [{_AXES[x].replace(' ', ', ')}]" if x in _AXES else f"{x}=" for x in known)
    try:
        if unknown := [name for name in named if name not in known]:
            raise TypeError(f"there is no argument '{unknown[0]}'")
        found = head.bind(*given, **named).arguments
    except TypeError as why:
        raise TypeError(f"{who}: {why}; it takes {takes}") from None
    for name, x in found.items():
        if name in _AXES and not isinstance(x, Tensor) and (x is not None or known[name].default is not None):
            raise _dtype_error(**{name: x})


def _whole_sizes(least: int, /, **sizes: int) -> dict[str, int]:
    """The sizes that a layer is made with, 0 for one that each call tells; ValueError where one is no size."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < least:
            raise ValueError(f"{name} is {size!r}; a size is a whole number, {least} or more")
    return sizes
'''

_AS_MADE = '''
def _as_made(layer, **inputs):
    """ValueError where an input has other sizes than the layer was made with."""
    for name, x in inputs.items():
        axes = _AXES[name].split()
        for axis, size in zip(axes[::-1], x.shape[::-1] if isinstance(x, Tensor) else ()):
            if (layer.dims.get(axis) or size) != size:
                why = f"{axis} is {size} here and {layer.dims[axis]} in {type(layer).__name__}({layer.extra_repr()})"
                raise ValueError(f"{name} has shape {list(x.shape)} for [{', '.join(axes)}]; {why}")
'''
