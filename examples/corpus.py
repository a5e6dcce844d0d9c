"""Real text that every Python installation holds: the sources of its own standard library.

Out: tensors of ASCII codes. A character outside ASCII counts as `?`, so there are 128 symbols and no tables.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SYMBOLS = 128
HELD_OUT = 10  # every tenth file is never trained on


def encode(text: str) -> Tensor:
    """Text -> codes [length], int64."""
    codes = np.frombuffer(text.encode("ascii", errors="replace"), dtype=np.uint8)
    return torch.from_numpy(codes.astype(np.int64))


def decode(codes: Tensor) -> str:
    """Codes [length] -> text."""
    return bytes(codes.tolist()).decode("ascii")


def standard_library() -> tuple[Tensor, Tensor]:
    """(training text, held-out text), split by file: the top-level modules of the standard library, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [encode(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]
    kept = [file for i, file in enumerate(files) if i % HELD_OUT]
    return torch.cat(kept), torch.cat(files[::HELD_OUT])


def windows(text: Tensor, count: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(characters, the character after each), both [count, steps], from random places of the text."""
    starts = torch.randint(len(text) - steps, (count, 1), generator=generator)
    places = starts + torch.arange(steps)
    return text[places], text[places + 1]
