"""An order of tasks in which few bytes are held at once. Plain scheduling: it knows no graph and no kernel.

In: tasks that read and write values. Out: the tasks, every writer before the readers. The search is greedy: of the goals
that come next, it finishes the one after which the fewest bytes are held, again and again; the order that was given
counts as an answer too, and the answer that holds least at once wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WINDOW = 64  # goals that are compared, the next ones in the given order
EAGER = (0.5, 0.0, 1.0)  # how much the most held on the way counts, beside what is held afterwards
PASSES = 4  # of moving single tasks there and back
MANY = 256  # goals; above, fewer are compared and one way of counting is tried, so that time grows with their number alone


@dataclass(eq=False)
class Value:
    """What tasks hand on. It is held from the first writer to the last reader; without writers from the start."""

    bytes: int
    writers: list[Task] = field(default_factory=list)
    readers: list[Task] = field(default_factory=list)


@dataclass(eq=False)
class Task:
    """One thing to do. goal: worth finishing for its own sake; grows: what it reads is needed until all is written.

    One that is no goal and writes nothing stays the last, as it was given.
    """

    reads: tuple[Value, ...]
    writes: Value | None
    goal: bool = False
    grows: bool = False


def enlist(tasks: Iterable[Task]) -> None:
    """Tell the values of their readers and writers."""
    for task in tasks:
        for value in task.reads:
            value.readers.append(task)
        if task.writes is not None:
            task.writes.writers.append(task)


def sparing(tasks: Sequence[Task]) -> list[Task]:
    """The tasks in the best order found; ties go to the order that was given."""
    many = sum(t.goal for t in tasks) > MANY
    eagers, window = (EAGER[:1], WINDOW // 8) if many else (EAGER, WINDOW)
    tried = [list(tasks), *(_Search(tasks, eager, window).run() for eager in eagers)]
    if not many:
        tried += [settled(one) for one in tried]
    return min(tried, key=most_held)


def settled(order: Sequence[Task]) -> list[Task]:
    """The best order that moving single tasks leads to: what holds more comes late, what holds less comes early."""
    best = now = list(order)
    least = most_held(best)
    for at in range(2 * PASSES):
        now = _later(now) if at % 2 == 0 else _earlier(now)
        most = most_held(now)
        if most < least:
            best, least = now, most
    return best


def _later(order: Sequence[Task]) -> list[Task]:
    """Every task after which more is held stands right before what first needs it."""
    holding = _Holding(order)
    grows = {t for t in order if holding.walk([t])[0] > 0}
    out: list[Task] = []  # from the last task to the first
    for task in reversed(order):
        if task not in grows or task.writes is None:
            out.append(task)
            continue
        others = {*task.writes.readers, *task.writes.writers} - {task}
        first = max((i for i, t in enumerate(out) if t in others), default=len(out) - 1)
        out.insert(first + 1, task)
    return out[::-1]


def _earlier(order: Sequence[Task]) -> list[Task]:
    """Every task after which less is held stands right behind what it needs."""
    holding = _Holding(order)
    shrinks = {t for t in order if holding.walk([t])[0] < 0 and (t.goal or t.writes is not None)}
    out: list[Task] = []
    for task in order:
        if task not in shrinks:
            out.append(task)
            continue
        needs = {w for v in task.reads for w in v.writers}
        out.insert(max((i for i, t in enumerate(out) if t in needs), default=-1) + 1, task)
    return out


def most_held(order: Sequence[Task]) -> int:
    """The most bytes held at once."""
    return _Holding(order).walk(order)[1]


class _Holding:
    """What is held as tasks are done one after the other."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        values = {v: None for t in tasks for v in (*t.reads, *((t.writes,) if t.writes else ()))}
        self.left = {v: len(v.readers) for v in values}
        self.born = {v for v in values if not v.writers}

    def walk(self, order: Iterable[Task], keep: bool = True) -> tuple[int, int]:
        """(bytes more held after these tasks, the most on the way). keep: whether they count as done from now on."""
        held = most = 0
        left: dict[Value, int] = {}
        fresh: set[Value] = set()
        for task in order:
            new = task.writes
            starts = new is not None and new not in self.born and new not in fresh
            if starts and task.grows:
                held += new.bytes  # type: ignore[union-attr]
                most = max(most, held)
            for value in task.reads:
                now = left.get(value, self.left[value]) - 1
                left[value] = now
                if not now:
                    held -= value.bytes
            if new is not None and starts:
                fresh.add(new)
                if not task.grows:
                    held += new.bytes
                if not left.get(new, self.left[new]):
                    held -= new.bytes
            most = max(most, held)
        if keep:
            self.left.update(left)
            self.born |= fresh
        return held, most


class _Search:
    def __init__(self, tasks: Sequence[Task], eager: float, window: int) -> None:
        self.tasks, self.eager, self.window = tasks, eager, window
        self.bit = {t: 1 << i for i, t in enumerate(tasks)}
        self.before: dict[Task, int] = {}  # the task and all that must come before it, as bits
        self.done: set[Task] = set()
        self.holding = _Holding(tasks)
        for t in tasks:
            mask = self.bit[t]
            for v in t.reads:
                for w in v.writers:
                    mask |= self.before[w]
            self.before[t] = mask

    def run(self) -> list[Task]:
        """Goal after goal."""
        goals = [t for t in self.tasks if t.goal]
        out: list[Task] = []
        known: dict[Task, tuple[float, int, list[Task]]] = {}
        while goals:
            best: tuple[float, int, list[Task]] | None = None
            for goal in goals[: self.window]:
                if goal not in known:
                    known[goal] = self.judge(goal)
                if best is None or known[goal][:2] < best[:2]:
                    best = known[goal]
            assert best is not None
            chosen = best[2]
            self.holding.walk(chosen)
            self.done.update(chosen)
            out += chosen
            goals = [g for g in goals if g not in self.done]
            touched = 0
            for t in chosen:
                for v in (*t.reads, *((t.writes,) if t.writes else ())):
                    for other in (*v.readers, *v.writers):
                        touched |= self.bit[other]
            known = {g: said for g, said in known.items() if g not in self.done and not self.before[g] & touched}
        return [*out, *(t for t in self.tasks if t not in self.done)]

    def judge(self, goal: Task) -> tuple[float, int, list[Task]]:
        """(bytes held more once the goal is reached, tasks on the way, the way)."""
        way = self.way(goal)
        held, most = self.holding.walk(way, keep=False)
        return held + self.eager * most, len(way), way

    def way(self, goal: Task) -> list[Task]:
        """What is left to do for a goal, arguments first."""
        out: list[Task] = []
        seen = {goal}
        stack = [(goal, self.needs(goal))]
        while stack:
            task, needs = stack[-1]
            for need in needs:
                if need not in seen and need not in self.done:
                    seen.add(need)
                    stack.append((need, self.needs(need)))
                    break
            else:
                out.append(task)
                stack.pop()
        return out

    def needs(self, task: Task) -> Iterable[Task]:
        return iter([w for v in task.reads for w in v.writers])
