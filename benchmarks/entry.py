"""One entry of the benchmark: contenders that do the same work. In: an entry. Out: rows of measurements.

Results are compared with the truth before anything is timed; a contender that is wrong is reported as such and not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from benchmarks.ceilings import Ceilings, Work
from benchmarks.contender import Absent, Contender, error, numbers
from benchmarks.timing import quartiles, ratio
from seqc.check.timing import race
from seqc.check.verify_emitted import tolerance

OURS = ("seqc cpu", "seqc torch")  # the first that is there is what `auto` runs, and what ratios refer to


@dataclass(frozen=True)
class Entry:
    """label and sizes for the reader; truth: the same work in float64; works: by part."""

    label: str
    sizes: Mapping[str, int]
    contenders: list[Contender | Absent]
    truth: Contender
    works: Mapping[str, Work]


@dataclass(frozen=True)
class Row:
    """One contender in one part of an entry; `why` says why it has no times.

    seconds and ratio are (lower quartile, median, upper quartile); ratio: its time over that of seqc in the same round.
    bound: the share of the machine's bound that it reached. others: the share of the cores that other processes had.
    """

    label: str
    part: str
    sizes: Mapping[str, int]
    contender: str
    seconds: tuple[float, float, float] | None = None
    ratio: tuple[float, float, float] | None = None
    bound: float | None = None
    error: float | None = None
    others: float | None = None
    why: str = ""
    work: Work | None = None
    spec: str = ""

    def under(self, ceilings: Ceilings) -> Row:
        """The same measurement, judged by other ceilings: they may be known better later."""
        if self.seconds is None or self.work is None:
            return self
        return replace(self, bound=self.work.bound(ceilings) / self.seconds[1])

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def measure(
    entry: Entry, parts: Iterable[str], ceilings: Ceilings, rounds: int, patience: float = 0.0,
    told: Callable[[str], None] = lambda words: None,
) -> list[Row]:
    """All rows of an entry. patience: see `race`. told: hears what is going on."""
    rows: list[Row] = []
    for part in parts:
        if part not in entry.works:
            continue
        told(f"{entry.label}: {part}, comparing")
        want = numbers(entry.truth.calls[part]())
        calls, errors = {}, {}
        allowed = tolerance("float32", entry.sizes["T"])
        for contender in entry.contenders:
            if isinstance(contender, Absent):
                rows.append(Row(entry.label, part, entry.sizes, contender.name, why=contender.reason))
            elif part in contender.calls:
                found = errors[contender.name] = error(contender.calls[part](), want)
                if found <= allowed:
                    calls[contender.name] = contender.calls[part]
                else:
                    why = f"wrong: relative error {found:.1e}, allowed {allowed:.1e}"
                    rows.append(Row(entry.label, part, entry.sizes, contender.name, error=found, why=why))
        if not calls:
            continue
        told(f"{entry.label}: {part}, timing {len(calls)}")
        run = race(calls, rounds, patience=patience)
        times = run.seconds
        base = next((name for name in OURS if name in times), None)
        work = entry.works[part]
        for name, taken in times.items():
            q = quartiles(taken)
            against = ratio(taken, times[base]) if base else None
            row = Row(entry.label, part, entry.sizes, name, q, against, None, errors[name], run.others, work=work)
            rows.append(row.under(ceilings))
    return rows
