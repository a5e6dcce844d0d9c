"""How far a step reads from where it stands. In: a program. Out: the inputs that it reads at other steps, and what that
means for a sequence which arrives little by little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.ir.graph import leaves
from seqc.ir.program import INSIDE, Program
from seqc.ir.windows import lags


@dataclass(frozen=True)
class Reach:
    """Input -> how many steps ahead (back) it is read at most; all inputs of the program."""

    ahead: Mapping[str, int]
    back: Mapping[str, int]

    @property
    def lookahead(self) -> int:
        """How many steps later the last input comes that a step needs."""
        return max([0, *self.ahead.values()])

    @property
    def reason(self) -> str:
        """What reads that far ahead."""
        far = self.lookahead
        names = [f"`{name}[t+{far}]`" for name, n in self.ahead.items() if n == far and name != INSIDE]
        return f"it reads {', '.join(names)}" if far else "an output does not come before its input"

    @property
    def text(self) -> str:
        """Of a stream: its delay, and what it keeps. "" where it needs no other step."""
        kept = {name: self.lookahead + self.back[name] for name in self.back if name != INSIDE}
        if not any(kept.values()):
            return ""
        late = f"{self.lookahead} step{'s' * (self.lookahead != 1)} late ({self.reason})" if self.lookahead else "at once"
        rows = ", ".join(f"{n} of {name}" for name, n in kept.items())
        return f"in a stream (`.stream(..)`) it answers {late}; steps that are kept: {rows}"


def reach(program: Program) -> Reach:
    """What a step reads."""
    ahead, back = dict.fromkeys(program.inputs, 0), dict.fromkeys(program.inputs, 0)
    for n in leaves(program.graph.values(), "input"):
        name, found = n.text("name"), lags(n)
        ahead[name], back[name] = max(ahead.get(name, 0), -min(found)), max(back.get(name, 0), *found)
    return Reach(ahead, back)


def endless(program: Program) -> str:
    """Why the first output cannot come before the last input; "" where it can."""
    if program.direction == "both":
        return "one of its two runs begins at the last step"
    if program.direction == "backward":
        return "it begins at the last step: write what is known of later steps as a look-ahead, `x[t+2]`"
    return "its steps are rows of a second axis" if program.plane is not None else ""
