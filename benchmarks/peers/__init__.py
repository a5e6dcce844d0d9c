"""Other people's ways to compute the same. In: a task. Out: the contenders that exist for it, and those that are absent.

A peer is imported when it is asked for; one that is not installed is reported, never skipped in silence.
"""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.contender import Absent, Contender
from benchmarks.tasks import Task


def peers(task: Task) -> list[Contender | Absent]:
    """All peers of a task."""
    from benchmarks.peers import scans

    found: list[Contender | Absent] = []
    if find_spec("jax") is None:
        found.append(Absent("jax", "not installed (benchmarks/requirements.txt)"))
    else:
        from benchmarks.peers import jax_scans

        found += jax_scans.contenders(task)
    for package, make in (("mambapy", scans.mambapy), ("accelerated_scan", scans.accelerated)):
        if task.name not in scans.SERVED[package]:
            continue
        absent = find_spec(package) is None
        found.append(Absent(package, "not installed (benchmarks/requirements.txt)") if absent else make(task))
    return found
