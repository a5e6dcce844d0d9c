"""Other people's ways to compute the same. In: a task. Out: the contenders that exist for it, and those that are absent.

A peer is imported when it is asked for; one that is not installed is reported, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from benchmarks.contender import Absent, Contender
from benchmarks.tasks import Task


def peers(task: Task) -> list[Contender | Absent]:
    """All peers of a task."""
    from benchmarks.peers import attention, ggml, loops, neighbours, scans

    found: list[Contender | Absent] = []
    if find_spec("jax") is None:
        found.append(Absent("jax", "not installed (benchmarks/requirements.txt)"))
    else:
        from benchmarks.peers import jax_scans

        found += jax_scans.contenders(task)
    others: list[tuple[str, tuple[str, ...], Callable[[Task], Contender]]] = [
        ("mambapy", scans.SERVED["mambapy"], scans.mambapy),
        ("accelerated_scan", scans.SERVED["accelerated_scan"], scans.accelerated),
        ("onnxruntime", tuple(attention.RULES), attention.contender),
        ("libggml", ggml.SPECS if task.sizes.get("K") == task.sizes.get("V") else (), ggml.contender),
        ("snntorch", ("lif",), neighbours.snntorch),
        ("spikingjelly", ("lif",), neighbours.spikingjelly),
        ("arch", ("garch",), neighbours.arch),
        ("scipy", ("lfilter",), neighbours.scipy),
        ("torchlpc", ("lfilter",), neighbours.torchlpc),
        ("torch", loops.SPECS, loops.contender),
    ]
    for package, served, make in others:
        if task.name in served:
            absent = find_spec(package) is None
            found.append(Absent(package, "not installed (benchmarks/requirements.txt)") if absent else make(task))
    return found
