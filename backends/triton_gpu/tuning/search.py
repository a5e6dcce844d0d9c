"""An order of tasks in which few bytes are held at once. Plain scheduling: it knows no graph and no kernel.

In: tasks that read and write values. Out: the tasks, every writer before the readers. The search is greedy: of the goals
that come next, it finishes the one after which the fewest bytes are held, again and again; the order that was given
counts as an answer too, and the answer that holds least at once wins. Inside, tasks and values are their places in the
order that was given: the search asks the same small questions thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import sub

from seqc.ir.traverse import postorder

WINDOW = 64  # goals that are compared, the next ones in the given order
EAGER = (0.5, 0.0, 1.0)  # how much the most held on the way counts, beside what is held afterwards
PASSES = 4  # of moving single tasks there and back
MANY = 256  # goals; above, fewer are compared and one way of counting is tried, so that time grows with their number alone


@dataclass(eq=False)
class Value:
    """What tasks hand on. It is held from the first writer to the last reader; without writers from the start."""

    bytes: int


@dataclass(eq=False)
class Task:
    """One thing to do. goal: worth finishing for its own sake; grows: what it reads is needed until all is written.

    One that is no goal and writes nothing stays the last, as it was given.
    """

    reads: tuple[Value, ...]
    writes: Value | None
    goal: bool = False
    grows: bool = False


def sparing(tasks: Sequence[Task]) -> list[Task]:
    """The tasks in the best order found; ties go to the order that was given."""
    work = _Work(tasks)
    many = sum(t.goal for t in tasks) > MANY
    eagers, window = (EAGER[:1], WINDOW // 8) if many else (EAGER, WINDOW)
    tried = [list(range(len(tasks))), *(_search(work, eager, window) for eager in eagers)]
    if not many:
        tried += [_settled(work, one) for one in tried]
    return [tasks[t] for t in min(tried, key=work.most_held)]


class _Work:
    """The tasks and their values by their places: what each task needs, and who reads and writes each value."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        values = {v: None for t in tasks for v in (*t.reads, *((t.writes,) if t.writes else ()))}
        place = {v: i for i, v in enumerate(values)}
        self.bytes = [v.bytes for v in values]
        self.reads = [[place[v] for v in t.reads] for t in tasks]
        self.writes = [-1 if t.writes is None else place[t.writes] for t in tasks]
        self.grows = [t.grows for t in tasks]
        self.readers: list[list[int]] = [[] for _ in values]
        self.writers: list[list[int]] = [[] for _ in values]
        for t, (reads, new) in enumerate(zip(self.reads, self.writes, strict=True)):
            for v in reads:
                self.readers[v].append(t)
            if new >= 0:
                self.writers[new].append(t)
        self.needs = [[w for v in reads for w in self.writers[v]] for reads in self.reads]
        self.ways: dict[int, list[int]] = {}

    def most_held(self, order: Iterable[int]) -> int:
        """The most bytes held at once."""
        return _Holding(self).walk(order)[1]

    def way(self, goal: int) -> list[int]:
        """The goal and all that must come before it, arguments first."""
        if goal not in self.ways:
            self.ways[goal] = postorder([goal], self.needs.__getitem__)
        return self.ways[goal]


class _Holding:
    """What is held as tasks are done one after the other."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.left = [len(readers) for readers in work.readers]
        self.born = [not writers for writers in work.writers]

    def walk(self, order: Iterable[int], keep: bool = True, after: list[int] | None = None) -> tuple[int, int]:
        """(bytes more held after these tasks, the most on the way). keep: whether they count as done from now on.

        after: takes what is held after each.
        """
        left, born, bytes = self.left, self.born, self.work.bytes
        all_reads, writes, all_grow = self.work.reads, self.work.writes, self.work.grows
        held = most = 0
        fresh = []
        for t in order:
            new = writes[t]
            starts = new >= 0 and not born[new]
            grows = starts and all_grow[t]
            if grows:
                held += bytes[new]
                most = max(most, held)
            for v in all_reads[t]:
                left[v] -= 1
                if not left[v]:
                    held -= bytes[v]
            if starts:
                born[new] = True
                fresh.append(new)
                held += (0 if grows else bytes[new]) - (0 if left[new] else bytes[new])
            if held > most:
                most = held
            if after is not None:
                after.append(held)
        if not keep:
            for t in order:
                for v in all_reads[t]:
                    left[v] += 1
            for v in fresh:
                born[v] = False
        return held, most

    def changes(self, order: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Each task of an order, and how many bytes more are held after it than before."""
        after: list[int] = []
        self.walk(order, after=after)
        return zip(order, map(sub, after, [0, *after]), strict=False)


def _search(work: _Work, eager: float, window: int) -> list[int]:
    """Goal after goal, the cheapest of those that come next."""
    around = [sum(1 << t for t in {*readers, *writers}) for readers, writers in zip(work.readers, work.writers, strict=True)]
    before = [1 << t for t in range(len(work.tasks))]  # the task and all that must come before it, as bits
    for t, needs in enumerate(work.needs):
        for need in needs:
            before[t] |= before[need]
    holding = _Holding(work)
    done: set[int] = set()
    goals = [t for t, task in enumerate(work.tasks) if task.goal]
    out: list[int] = []
    known: dict[int, tuple[tuple[float, int], list[int]]] = {}  # goal -> (what is held, tasks on the way), the way
    while goals:
        for goal in goals[:window]:
            if goal not in known:
                way = [t for t in work.way(goal) if t not in done]
                held, most = holding.walk(way, keep=False)
                known[goal] = (held + eager * most, len(way)), way
        chosen = known[min(goals[:window], key=lambda goal: known[goal][0])][1]
        holding.walk(chosen)
        done.update(chosen)
        out += chosen
        goals = [g for g in goals if g not in done]
        touched = 0
        for t in chosen:
            for v in (*work.reads[t], *work.writes[t : t + 1]):
                touched |= around[v] if v >= 0 else 0
        known = {g: said for g, said in known.items() if g not in done and not before[g] & touched}
    return [*out, *(t for t in range(len(work.tasks)) if t not in done)]


def _settled(work: _Work, order: Sequence[int]) -> list[int]:
    """The best order that moving single tasks leads to: what holds more comes late, what holds less comes early."""
    best = now = list(order)
    least = work.most_held(best)
    for at in range(2 * PASSES):
        now = _later(work, now) if at % 2 == 0 else _earlier(work, now)
        most = work.most_held(now)
        if most < least:
            best, least = now, most
    return best


def _later(work: _Work, order: Sequence[int]) -> list[int]:
    """Every task after which more is held stands right before what first needs it."""
    grows = {t for t, more in _Holding(work).changes(order) if more > 0}
    out: list[int] = []  # from the last task to the first
    for task in reversed(order):
        new = work.writes[task]
        if task not in grows or new < 0:
            out.append(task)
            continue
        others = {*work.readers[new], *work.writers[new]} - {task}
        out.insert(_last(out, others, len(out) - 1) + 1, task)
    return out[::-1]


def _earlier(work: _Work, order: Sequence[int]) -> list[int]:
    """Every task after which less is held stands right behind what it needs."""
    changes = _Holding(work).changes(order)
    shrinks = {t for t, more in changes if more < 0 and (work.tasks[t].goal or work.writes[t] >= 0)}
    out: list[int] = []
    for task in order:
        at = _last(out, set(work.needs[task]), -1) if task in shrinks else len(out) - 1
        out.insert(at + 1, task)
    return out


def _last(order: Sequence[int], among: set[int], other: int) -> int:
    """The last place of one of these tasks; `other` where there is none."""
    return next((i for i in range(len(order) - 1, -1, -1) if order[i] in among), other)
