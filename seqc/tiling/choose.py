"""The tiles of a kernel: solve, ask what the toolchain says of the answer, and solve again without what it refuses.

Comes in: a `KernelSummary`, a target, and a way to ask for verdicts: the committed table where a spec is compiled, the
toolchain itself where the table is refreshed. Goes out: a `Choice`, or the `Clash` that leaves none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqc.targets import Occupancy, Target, occupancy
from seqc.tiling.kernel_problem import Refusal, kernel_problem, refusal
from seqc.tiling.kernel_summary import KernelSummary, Workload
from seqc.tiling.problem import Clash, Solution
from seqc.tiling.solve import solve
from seqc.tiling.verdicts import Verdict

__all__ = ["ROUNDS", "Choice", "choose"]

ROUNDS = 12
"""Verdicts asked for one kernel at most; each refusal rules out all larger tiles too, so few are needed."""


@dataclass(frozen=True)
class Choice:
    """A kernel's tiles and how they came about."""

    solution: Solution
    verdict: Verdict | None
    """The toolchain's figures at these tiles; None where it was never asked."""
    refused: tuple[Refusal, ...]
    """What it refused on the way, in order."""

    def occupancy(self, target: Target) -> Occupancy | None:
        """What the kernel's real figures let a unit hold; None without a verdict."""
        if self.verdict is None or self.verdict.error is not None:
            return None
        said = self.verdict
        return occupancy(target, said.registers, said.shared, self.solution["warps"], said.tensor_memory)


def choose(
    summary: KernelSummary,
    target: Target,
    ask: Callable[[Mapping[str, int]], Verdict | None],
    *,
    workload: Workload | None = None,
) -> Choice | Clash:
    """The fastest tiles by the model that the toolchain does not refuse.

    Where it refuses all, the kernel that spilled least is taken: a spill costs time, never correctness. A kernel that
    did not compile, or whose shared memory the target lacks, is never taken.
    """
    refused: list[Refusal] = []
    spilled: list[tuple[int, Solution, Verdict]] = []
    while True:
        answer = solve(kernel_problem(summary, target, refused=refused, workload=workload))
        if isinstance(answer, Clash):
            if not spilled:
                return answer
            break
        assignment = dict(answer.assignment)
        verdict = ask(assignment)
        no = None if verdict is None else refusal(verdict, assignment, target)
        if no is None:
            return Choice(answer, verdict, tuple(refused))
        assert verdict is not None
        refused.append(no)
        if verdict.error is None and not no.by_stages:
            spilled.append((verdict.spills, answer, verdict))
        if len(refused) == ROUNDS:
            break
    if not spilled:
        return Clash(tuple(one.sentence for one in refused))
    _, solution, verdict = min(spilled, key=lambda one: one[0])
    return Choice(solution, verdict, tuple(refused))
