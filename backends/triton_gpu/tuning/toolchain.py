"""Triton's own word on emitted kernels: compile for a target without a GPU, and report what the machine code needs.

Comes in: jobs, each a module's text, a kernel in it, a target and a configuration. Goes out: a frozen `Verdict` per
job, refusals and crashes included as data. `refresh` asks for what a table does not hold yet and returns the grown
table. Nothing here runs when a spec is compiled: that only reads the committed one (`verdicts`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from seqc.backends.triton_gpu.tuning.targets import target_named
from seqc.backends.triton_gpu.tuning.verdicts import Configuration, Verdict, VerdictTable, key

SECONDS = 600  # that a kernel may take
LATE = "not compiled within"  # says more of the machine than of the kernel: it is not recorded
WORKER = Path(__file__).with_name("toolchain_worker.py")


@dataclass(frozen=True)
class Job:
    """One kernel to compile for one target."""

    source: str
    """Text of a whole module that imports Triton and defines the kernel and all that it calls."""
    kernel: str
    target: str
    configuration: Configuration

    @property
    def key(self) -> str:
        """The job's key in a table of verdicts."""
        return key(self.source, self.kernel, self.target, self.configuration)


def available() -> str | None:
    """None where kernels can be compiled here, otherwise the reason why not."""
    from importlib.util import find_spec

    if find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def judge(jobs: Sequence[Job], *, progress: Callable[[int, int], None] | None = None) -> tuple[Verdict, ...]:
    """Compile every job, one after the other in a process of its own, and return its verdicts in the same order.

    A job that ends the process, or takes longer than `SECONDS`, gets a verdict that says so. `progress` is called
    with (done, all) after each.
    """
    verdicts: list[Verdict] = []
    while len(verdicts) < len(jobs):
        before = len(verdicts)
        trouble = _one_process(jobs, verdicts, progress)
        if trouble is not None:
            verdicts.append(Verdict(0, 0, 0, 0, (), "triton", trouble))
            if progress is not None:
                progress(len(verdicts), len(jobs))
        assert len(verdicts) > before
    return tuple(verdicts)


def refresh(
    jobs: Iterable[Job],
    table: VerdictTable,
    *,
    again: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerdictTable:
    """The table grown by verdicts on those of `jobs` that it lacks (on all of them where `again`)."""
    wanted = {job.key: job for job in jobs if again or job.key not in table}
    said = zip(wanted, judge(list(wanted.values()), progress=progress), strict=True)
    return table.with_verdicts((key, verdict) for key, verdict in said if not (verdict.error or "").startswith(LATE))


def _one_process(
    jobs: Sequence[Job], verdicts: list[Verdict], progress: Callable[[int, int], None] | None
) -> str | None:
    """Feed the jobs after those already judged to one worker; the reason why it ended early, or None."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": folder, "TRITON_DEFAULT_FP_FUSION": "1"}
        command = [sys.executable, "-P", str(WORKER)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=env) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            for job in jobs[len(verdicts) :]:
                clock = Timer(SECONDS, worker.kill)
                clock.start()
                try:
                    worker.stdin.write(json.dumps(_fields(job)) + "\n")
                    worker.stdin.flush()
                    answer = worker.stdout.readline()
                except BrokenPipeError:
                    answer = ""
                finally:
                    late = not clock.is_alive()
                    clock.cancel()
                if not answer:
                    worker.stdin.close()
                    code = worker.wait()
                    return f"{LATE} {SECONDS} seconds" if late else _last_words(errors, code)
                record: dict[str, Any] = json.loads(answer)
                record["counts"] = tuple((name, count) for name, count in record["counts"])
                record["work"] = tuple((name, *both) for name, both in record.get("work", {}).items())
                verdicts.append(Verdict(**record))
                if progress is not None:
                    progress(len(verdicts), len(jobs))
            worker.stdin.close()
    return None


def _fields(job: Job) -> dict[str, Any]:
    target = target_named(job.target)
    return {
        "source": job.source,
        "kernel": job.kernel,
        "signature": job.configuration.signature,
        "constants": job.configuration.constants,
        "warps": job.configuration.warps,
        "stages": job.configuration.stages,
        "vendor": target.vendor,
        "arch": target.arch,
        "warp": target.warp,
    }


def _last_words(errors: Any, code: int) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    ended = f"the compiling process died of signal {-code}" if code < 0 else "the compiling process ended"
    return f"{ended}: {lines[-1][:600]}" if lines else ended
