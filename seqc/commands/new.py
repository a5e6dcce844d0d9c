"""`seqc new`: a commented spec to start from. In: a name. Out: NAME.seq, which compiles as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from seqc.commands.options import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("name", metavar="NAME", help="the name of the recurrence, an identifier")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write (default: NAME.seq)")


def run(args: argparse.Namespace) -> int:
    """Write the spec. Refuses to overwrite a file, and a name that a spec cannot have."""
    from seqc.build import load
    from seqc.diagnostics import Diagnostic, SpecError

    text = STARTER.format(name=args.name)
    load(text)  # says what is wrong with the name
    path: Path = args.output or Path(f"{args.name}.seq")
    if path.exists():
        raise SpecError(Diagnostic("file-exists", f"`{path}` is there already", help="give another name with -o"))
    path.write_text(text, encoding="utf-8")
    say(f"{path}: edit it, then `seqc check {path}` and `seqc explain {path}`")
    return 0


STARTER = '''\
spec {name}
"""One line on what the recurrence is.

S_t = exp(g_t) S_{{t-1}} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)        (who wrote it, where it is published)
"""

# Named dims. Batch and time are implicit. `dim K = 64` gives a default, `dim K {{32, 64}}` a set of sizes.
dim H, K, V

# What is given at every step. A range is a promise that buys a faster kernel; `unit[K]` promises a 2-norm of 1.
input q[H, K], k[H, K], v[H, V]
input g[H, K] in [-inf, 0]  # the logarithm of a decay

# Parameters do not depend on time and are trained: `param A[H, K] init 0.5`.

# What is carried from step to step, with its value before the first one.
state S[H, K, V] = 0

# One time step. A bare name is its value now, `x[t-1]` one step ago. Operators broadcast by name, so `k * v` is the
# outer product over K and V; `sum[K](...)` contracts.
S = exp(g) * S[t-1] + k * v
output o = sum[K](q * S) / sqrt(K)

# Optional: a claim about the transition, which is proved or refused; and wishes for the schedule.
eigenvalues S in [0, 1]
'''
