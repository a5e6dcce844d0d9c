"""Triton's interpreter, for tests: chosen for this process, and faster where it does the same thing again and again.

In: nothing. Out: `choose()`, to be called before Triton is first imported. What kernels compute stays the same, to the bit
(`test_device` compares), in a fraction of the time:
- a scan or a reduction with a function that numpy does not have (ours; the exclusive or of `tl.flip`) is computed for one
  position along the axis at a time, not for one element;
- the builtins of the language are replaced once, not at each call of a kernel or a device function, and there with one more
  layer around the last one;
- what only a type or a shape says (the numpy type, the number of elements) is worked out once for each, and tensors of one
  shape are not broadcast.
One thing is mended: a product of bf16 operands, whose bits Triton's own interpreter multiplies as whole numbers.
"""

from __future__ import annotations

import functools
import os
from types import SimpleNamespace
from typing import Any


@functools.cache
def choose() -> None:
    """Kernels of this process run in the interpreter."""
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    interpreter.ScanOps.generic_scan = scan_by_slices
    plain = interpreter.ReduceOps.generic_reduce
    interpreter.ReduceOps.generic_reduce = lambda self, x: plain(self, x) if self.axis is None else reduce_by_slices(self, x)
    interpreter._patch_lang = Patches(interpreter._patch_lang)
    remember_types()
    mend()


def remember_types() -> None:
    """Let what types and tensors say of their shape be worked out once for each shape."""
    from triton.language import core
    from triton.runtime import interpreter

    make_type, make_tensor = core.block_type.__init__, core.tensor.__init__
    types: dict[Any, dict[str, Any]] = {}
    shapes: dict[Any, tuple[Any, Any]] = {}

    def new_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (str(element_ty), *(getattr(extent, "value", extent) for extent in shape))
        if key not in types:
            make_type(self, element_ty, shape)
            types[key] = vars(self).copy()
        vars(self).update(types[key] | {"element_ty": element_ty})

    def new_tensor(self: Any, handle: Any, type: Any) -> None:
        key = (*type.shape,) if type.is_block() else ()
        if key not in shapes:
            make_tensor(self, handle, type)
            shapes[key] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = shapes[key]

    core.block_type.__init__, core.tensor.__init__ = new_type, new_tensor
    plain = interpreter._get_np_dtype
    of_numbers = functools.cache(plain)
    interpreter._get_np_dtype = lambda type: plain(type) if type.scalar.is_ptr() else of_numbers(type.scalar)
    broadcast = interpreter.TritonSemantic.broadcast_impl_value

    def broadcast_others(self: Any, lhs: Any, rhs: Any) -> Any:
        same = lhs.type.is_block() and rhs.type.is_block() and [*lhs.type.shape] == [*rhs.type.shape]
        return (lhs, rhs) if same else broadcast(self, lhs, rhs)

    interpreter.TritonSemantic.broadcast_impl_value = broadcast_others


def mend() -> None:
    """Let products of bf16 operands be products of these."""
    from triton.runtime.interpreter import InterpreterBuilder

    create_dot = InterpreterBuilder.create_dot
    InterpreterBuilder.create_dot = create_dot if hasattr(create_dot, "mended") else product(create_dot)


def product(create_dot: Any) -> Any:
    """`InterpreterBuilder.create_dot` that takes operands in bf16 for what they are."""
    from triton import language
    from triton.runtime.interpreter import TensorHandle

    def read(x: Any) -> Any:
        wide = x.dtype.scalar == language.bfloat16
        return TensorHandle((x.data.astype("uint32") << 16).view("float32"), language.float32) if wide else x

    def mended(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return create_dot(self, read(a), read(b), *others)

    mended.mended = True  # type: ignore[attr-defined]
    return mended


class Patches:
    """`_patch_lang` of Triton's interpreter, which replaces the builtins that a function sees: once, and for good."""

    def __init__(self, patch: Any) -> None:
        self.patch = patch
        self.done: set[str] = set()
        self.seen: dict[int, dict[str, Any]] = {}

    def __call__(self, function: Any) -> SimpleNamespace:
        from triton import language

        names = function.__globals__
        if self.seen.get(id(names)) is names:
            return SimpleNamespace(restore=lambda: None)
        known = {"tl": language, "core": language.core}
        seen = {name for name, module in known.items() if any(x is module for x in names.values())}
        if not seen <= self.done:
            self.patch(function)
            self.done |= seen
        self.seen[id(names)] = names
        return SimpleNamespace(restore=lambda: None)


def by_slices(self: Any, inputs: Any) -> tuple[list[tuple[Any, ...]], list[int]]:
    """What stands at each position of the axis after it was combined with all before it, and the shape of one position."""
    import numpy as np

    parts = [[self.to_tensor(part, x.dtype) for part in np.moveaxis(x.handle.data, self.axis, 0)] for x in inputs]
    first, *others = zip(*parts, strict=True)
    rows = [first]
    for step in others:
        made = self.combine_fn.fn(*rows[-1], *step)
        rows.append(made if isinstance(made, tuple) else (made,))
    return rows, [*np.delete(inputs[0].handle.data.shape, self.axis)]


def scan_by_slices(self: Any, inputs: Any) -> list[Any]:
    """`ScanOps.generic_scan` of Triton's interpreter, for all elements at one position of the axis at once."""
    import numpy as np

    rows, shape = by_slices(self, inputs)
    joined = (np.stack([x.handle.data.reshape(shape) for x in column], self.axis) for column in zip(*rows, strict=True))
    return [self.to_tensor(data, x.dtype) for data, x in zip(joined, inputs, strict=True)]


def reduce_by_slices(self: Any, inputs: Any) -> list[Any]:
    """`ReduceOps.generic_reduce` of Triton's interpreter along one axis, for all elements at one position of it at once."""
    import numpy as np

    rows, shape = by_slices(self, inputs)
    last = (x.handle.data.reshape(shape) for x in rows[-1])
    kept = (np.expand_dims(data, self.axis) if self.keep_dims else data for data in last)
    return [self.to_tensor(data, x.dtype) for data, x in zip(kept, inputs, strict=True)]
