"""What the toolchain said of a kernel at given tiles: a frozen record, and tables of such records.

Comes in: a kernel's text, a target and a configuration. Goes out: the recorded `Verdict`, or None where the toolchain
was never asked. The committed table has what was said of the specs that ship, and an installed package never changes it; a
person's own table, in the cache folder, has what was said of other specs. Compiling a spec only reads them, so that its
output depends on nothing but spec, options, version and, for a spec of one's own, what the toolchain was asked. Who asks
the toolchain and adds to a table is `seqc.backends.triton_gpu.tuning.toolchain.refresh`.
"""

from __future__ import annotations

import hashlib
import io
import json
import token
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from seqc.cache import cache_folder
from seqc.diagnostics import Diagnostic, Refusal
from seqc.files import alone, folder, write

TABLE = Path(__file__).parent / "verdicts.json"
"""The committed table."""
BETWEEN = "\n\n\n"  # functions of a text, each of which is read once


def own_table() -> Path | None:
    """Where the verdicts of a person's own specs lie: `$XDG_CACHE_HOME/seqc` or `~/.cache/seqc`; None without a home."""
    folder = cache_folder()
    return folder and folder / "verdicts.json"


Work = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Configuration:
    """All that decides a kernel's machine code beside its text and target."""

    signature: tuple[tuple[str, str], ...]
    """Each run-time argument and its Triton type, such as ("p_q", "*bf16") or ("T", "i32"), in order."""
    constants: tuple[tuple[str, int | float | bool | str | None], ...]
    """Each constexpr argument and its value, in order."""
    warps: int
    stages: int

    @property
    def words(self) -> str:
        """`H 8, K 64, BV 32, 4 warps, 2 stages`, and a fingerprint of the types of the arguments."""
        return f"{self.tiles}, types {_types(self.signature)}"

    @property
    def tiles(self) -> str:
        """The same without the types: arguments of another text have another order."""
        sizes = [f"{name} {value}" for name, value in self.constants]
        return ", ".join([*sizes, f"{self.warps} warps", f"{self.stages} stages"])


@dataclass(frozen=True)
class Verdict:
    """The toolchain's figures for one kernel, or its refusal.

    `registers` are 32-bit registers a thread; `spills` bytes of registers a thread kept in memory; `shared` bytes a
    program; `tensor_memory` columns that a program holds (Blackwell only); `counts` are instructions of the text, not
    executions, by kind.
    """

    registers: int
    spills: int
    shared: int
    tensor_memory: int
    counts: tuple[tuple[str, int], ...]
    toolchain: str
    """Version that spoke, such as "triton 3.9.0"."""
    error: str | None = None
    """Why there is no kernel, in the toolchain's words; the figures are then 0."""
    work: Work = ()
    """By kind: what one warp runs for each 64 steps that its program walks, and what once (`machine_code.Executed`); empty
    where that was not looked at."""

    @property
    def fits(self) -> bool:
        """Whether the kernel was made and keeps all its registers."""
        return self.error is None and self.spills == 0

    def tells_all(self, vendor: str) -> bool:
        """Whether nothing is left to ask: on NVIDIA, how often the machine code runs what too."""
        return bool(self.work) or self.error is not None or vendor != "cuda"

    @property
    def prefetches(self) -> bool | None:
        """Whether some load is on its way before its turn, as stages ask for; None where it was not looked at."""
        found = dict(self.counts).get("async")
        return None if found is None else found > 0

    def count(self, kind: str) -> int:
        """Instructions of a kind, such as "matrix" (mma, wgmma, tcgen05 or mfma), "spill", or "all"."""
        return dict(self.counts).get(kind, 0)


@cache
def _types(signature: tuple[tuple[str, str], ...]) -> str:
    return hashlib.sha256(json.dumps(signature).encode()).hexdigest()[:8]


@cache
def digest(text: str) -> str:
    """Fingerprint of a kernel's text that comments, docstrings and line breaks do not change."""
    return hashlib.sha256(" ".join(map(_words, text.split(BETWEEN))).encode()).hexdigest()[:16]


@cache
def _words(text: str) -> str:
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
    return " ".join(words)


def family(text: str, kernel: str, target: str) -> str:
    """What the keys of a kernel's records on a target have in common."""
    return f"{kernel} {digest(text)} {target}"


def key(text: str, kernel: str, target: str, configuration: Configuration) -> str:
    """The table's key of a kernel `kernel` in module text `text`."""
    return f"{family(text, kernel, target)}: {configuration.words}"


class VerdictTable:
    """Verdicts by key. Reading never changes it; `with_verdicts` returns a new one."""

    def __init__(self, entries: Mapping[str, Verdict] | None = None) -> None:
        self._entries = dict(entries or {})
        self._families = {name.partition(": ")[0] for name in self._entries}
        self._by_kernel: dict[tuple[str, str], list[str]] = {}
        for name in self._entries:
            self._by_kernel.setdefault(_whose(name.partition(": ")[0]), []).append(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Verdict:
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def knows(self, family: str) -> bool:
        """Whether a kernel has any record on a target."""
        return family in self._families

    def before(self, family: str, extents: Mapping[str, int]) -> dict[str, Verdict]:
        """By the tiles of their configurations, what is known of other texts of a kernel, on a target and at extents for which
        nothing is known of this text; empty where something is. extents: by argument."""
        found: dict[str, Verdict] = {}
        for name in self._by_kernel.get(_whose(family), ()):
            kind, _, words = name.partition(": ")
            told = dict(word.split(" ", 1) for word in words.split(", "))
            if all(told.get(arg) == str(size) for arg, size in extents.items()):
                if kind == family:
                    return {}
                found[words.rpartition(", types ")[0]] = self._entries[name]
        return found

    def get(self, name: str) -> Verdict | None:
        """The recorded verdict, or None."""
        return self._entries.get(name)

    def with_verdicts(self, added: Iterable[tuple[str, Verdict]]) -> VerdictTable:
        """This table and the (key, verdict) pairs, which replace older ones."""
        return VerdictTable(self._entries | dict(added))

    def only(self, keys: Iterable[str]) -> VerdictTable:
        """This table without the entries that `keys` does not name: how stale records go."""
        kept = set(keys)
        return VerdictTable({name: verdict for name, verdict in self._entries.items() if name in kept})

    def beside(self, other: VerdictTable) -> VerdictTable:
        """This table, and of another what it has on kernels that this one knows nothing of."""
        return self.with_verdicts((name, other[name]) for name in other if not self.knows(name.partition(": ")[0]))

    @staticmethod
    def change(path: Path, added: Iterable[tuple[str, Verdict]], dropped: Iterable[str] = ()) -> VerdictTable:
        """Write (key, verdict) pairs into the table at `path`, and take keys out of it: what another process has written since
        this one read it stays, and none writes meanwhile. Returns the table that is there now. Raises Refusal."""
        gone = set(dropped)
        with alone(folder(path.parent, 0o700)):
            table = VerdictTable.load(path).with_verdicts(added)
            table = table.only(name for name in table if name not in gone)
            table.save(path)
        return table

    def save(self, path: Path = TABLE) -> None:
        """Write as JSON, one record a line, in the order of the keys. Raises Refusal where that fails."""
        lines = [f"{json.dumps(name)}: {json.dumps(_record(self._entries[name]))}" for name in sorted(self._entries)]
        folder(path.parent, 0o700)  # it holds libraries too, which nobody else may write
        write(path, "{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n")

    @staticmethod
    def load(path: Path = TABLE) -> VerdictTable:
        """Read what `save` wrote; an absent file is an empty table. Raises Refusal for a file that it did not write."""
        try:
            text = path.read_text(encoding="utf-8")
            return VerdictTable({name: _verdict(one) for name, one in json.loads(text).items()})
        except (FileNotFoundError, NotADirectoryError):
            return VerdictTable()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"`{path}` is no table of verdicts: {getattr(error, 'strerror', None) or error}"
            raise Refusal(Diagnostic("no-verdicts", message, help="delete it, and ask the toolchain again")) from error


def _whose(family: str) -> tuple[str, str]:
    """A kernel's name and target."""
    kernel, _, target = family.split(" ")
    return kernel, target


def _record(verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is written: zeros are left out, but for what is told from what was not looked at."""
    if verdict.error is not None:
        return {"error": verdict.error, "toolchain": verdict.toolchain}
    found: dict[str, Any] = {"registers": verdict.registers, "spills": verdict.spills, "shared": verdict.shared}
    if verdict.tensor_memory:
        found["tensor_memory"] = verdict.tensor_memory
    found["counts"] = {k: n for k, n in verdict.counts if n or k == "async"}
    if verdict.work:
        found["work"] = {kind: both for kind, *both in verdict.work}
    return found | {"toolchain": verdict.toolchain}


def _verdict(record: Mapping[str, Any]) -> Verdict:
    registers, spills, shared, tensor_memory = (
        int(record.get(name, 0)) for name in ("registers", "spills", "shared", "tensor_memory")
    )
    counts = tuple((kind, int(n)) for kind, n in record.get("counts", {}).items())
    work = tuple((kind, float(each), float(once)) for kind, (each, once) in record.get("work", {}).items())
    return Verdict(registers, spills, shared, tensor_memory, counts, record["toolchain"], record.get("error"), work)
