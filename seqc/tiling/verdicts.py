"""What the toolchain said of a kernel at given tiles: a frozen record, and the committed table of such records.

Comes in: a kernel's text, a target and a configuration. Goes out: the recorded `Verdict`, or None where the toolchain
was never asked. Compiling a spec only reads this table, so that its output depends on nothing but spec, options and
version; who asks the toolchain and adds to the table is `seqc.backends.triton_gpu.toolchain.refresh`.
"""

from __future__ import annotations

import hashlib
import io
import json
import token
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

__all__ = ["TABLE", "Configuration", "Verdict", "VerdictTable", "digest", "key"]

TABLE = Path(__file__).parent / "verdicts.json"
"""The committed table."""


@dataclass(frozen=True)
class Configuration:
    """All that decides a kernel's machine code beside its text and target."""

    signature: tuple[tuple[str, str], ...]
    """Each run-time argument and its Triton type, such as ("p_q", "*bf16") or ("T", "i32"), in order."""
    constants: tuple[tuple[str, int | float | bool | str | None], ...]
    """Each constexpr argument and its value, in order."""
    warps: int
    stages: int


@dataclass(frozen=True)
class Verdict:
    """The toolchain's figures for one kernel, or its refusal.

    `registers` are 32-bit registers a thread; `spills` bytes of registers a thread kept in memory; `shared` bytes a
    program; `counts` are instructions of the text, not executions.
    """

    registers: int
    spills: int
    shared: int
    matrix_units: bool
    """Whether the kernel uses matrix instructions (mma, wgmma, tcgen05 or mfma)."""
    tensor_memory: int
    """Columns of tensor memory that a program holds (Blackwell only)."""
    counts: tuple[tuple[str, int], ...]
    toolchain: str
    """Version that spoke, such as "triton 3.9.0"."""
    error: str | None = None
    """Why there is no kernel, in the toolchain's words; the figures are then 0."""

    @property
    def fits(self) -> bool:
        """Whether the kernel was made and keeps all its registers."""
        return self.error is None and self.spills == 0


def digest(text: str) -> str:
    """Fingerprint of a kernel's text that comments, docstrings and line breaks do not change."""
    words: list[str] = []
    fresh = True
    for part in tokenize.generate_tokens(io.StringIO(text).readline):
        if part.type in (tokenize.COMMENT, tokenize.NL, token.ENDMARKER):
            continue
        if part.type == token.INDENT:
            words.append("{")
        elif part.type == token.DEDENT:
            words.append("}")
        elif part.type == token.NEWLINE:
            words.append(";")
        elif not (part.type == token.STRING and fresh):
            words.append(part.string)
        fresh = part.type in (token.INDENT, token.DEDENT, token.NEWLINE) or (fresh and part.type == token.STRING)
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:24]


def key(text: str, kernel: str, target: str, configuration: Configuration) -> str:
    """The table's key of a kernel `kernel` in module text `text`."""
    config = json.dumps(asdict(configuration), sort_keys=True)
    return f"{target}/{kernel}/{digest(text)}/{hashlib.sha256(config.encode()).hexdigest()[:24]}"


class VerdictTable:
    """Verdicts by key. Reading never changes it; `with_verdicts` returns a new one."""

    def __init__(self, entries: Mapping[str, Verdict] | None = None) -> None:
        self._entries = dict(entries or {})

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Verdict:
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def verdict(self, text: str, kernel: str, target: str, configuration: Configuration) -> Verdict | None:
        """The recorded verdict, or None."""
        return self._entries.get(key(text, kernel, target, configuration))

    def with_verdicts(self, added: Iterable[tuple[str, Verdict]]) -> VerdictTable:
        """This table and the (key, verdict) pairs, which replace older ones."""
        return VerdictTable(self._entries | dict(added))

    def only(self, keys: Iterable[str]) -> VerdictTable:
        """This table without the entries that `keys` does not name: how stale records go."""
        kept = set(keys)
        return VerdictTable({name: verdict for name, verdict in self._entries.items() if name in kept})

    def save(self, path: Path = TABLE) -> None:
        """Write as JSON, one record a line, in the order of the keys."""
        lines = [f"{json.dumps(name)}: {json.dumps(asdict(self._entries[name]))}" for name in sorted(self._entries)]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n", encoding="utf-8")

    @staticmethod
    def load(path: Path = TABLE) -> VerdictTable:
        """Read what `save` wrote; an absent file is an empty table."""
        if not path.exists():
            return VerdictTable()
        entries = {}
        for name, record in json.loads(path.read_text(encoding="utf-8")).items():
            counts = tuple((word, int(count)) for word, count in record["counts"])
            entries[name] = replace(Verdict(**record), counts=counts)
        return VerdictTable(entries)
