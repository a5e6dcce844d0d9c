"""The Triton part of an emitted file. In: top-level definitions whose kernels are marked `@triton.jit`. Out: the same
text with a mark that waits: Triton is imported (`loader`), and sees the kernels, when the first CUDA tensor arrives.
"""

from __future__ import annotations

import re

_MARK = '''
triton = tl = None  # imported by _load_triton
_KERNELS = []


def _jit(function=None, **options):
    """Mark a Triton kernel. The function stays as it is until `_load_triton` hands it to Triton."""
    if function is None:
        return lambda function: _jit(function, **options)
    _KERNELS.append((function, options))
    return function
'''
_LOADER = '''
def _load_triton():
    """Import Triton and hand it the kernels: done once, when a CUDA tensor arrives, for nothing else needs Triton."""
    global triton, tl
    if _KERNELS:
        import triton
        import triton.language as tl

        for function, options in _KERNELS:
            globals()[function.__name__] = triton.jit(function, **options)
        _KERNELS.clear()
'''

# Some transposed operands are results of other products, and the quarantine of tiles knows of blocks of many rows only.
_HOPPER = '''
        hopper = torch.version.cuda and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
        if hopper and torch.torch_version.TorchVersion(triton.__version__) < "3.7.1":
            warnings.warn(
                f"Triton {triton.__version__} may miscompile products with transposed operands here: take 3.7.1 or later",
                stacklevel=2,
            )
'''


def triton_text(text: str) -> str:
    """The mark, then the kernels and their launchers."""
    return f"{_MARK.strip()}\n\n\n{marked(text)}"


def loader(text: str) -> str:
    """What imports Triton. text: the kernels."""
    return f"{_LOADER.strip()}{_HOPPER.rstrip() if 'tl.dot(tl.trans(' in text else ''}"


def marked(text: str) -> str:
    """Definitions whose kernels wait."""
    return re.sub(r"^@triton\.jit\b", "@_jit", text.strip(), flags=re.MULTILINE)
