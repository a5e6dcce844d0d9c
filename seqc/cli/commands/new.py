"""`seqc new`: a commented spec to start from. In: a name, and what it is to be like. Out: NAME.seq, which compiles as it is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from seqc.cli.commands.options import say


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("name", metavar="NAME", help="the name of the recurrence, an identifier")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (default: NAME.seq; - is stdout)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--like", metavar="SPEC", help="a copy of a shipped spec, by name (`seqc list`), or of a file")
    how.add_argument("--matrix", action="store_true", help="a matrix state that decays, is written and is read (the default)")
    how.add_argument("--cell", action="store_true", help="a cell with recurrent weights and gates")
    how.add_argument("--scan", action="store_true", help="an elementwise linear recurrence")


def run(args: argparse.Namespace) -> int:
    """Write the spec. Refuses to overwrite a file, and a name that a spec cannot have."""
    from seqc.diagnostics import Diagnostic, SpecError
    from seqc.files import STDOUT, put, write
    from seqc.frontend.elaborate import load

    if not args.name.isidentifier():
        path = Path(args.name)
        help = "a name is made of letters, digits and `_`, and begins with a letter"
        if path.stem.isidentifier():  # a path, or the file's name
            where = f" -o {path.with_suffix('.seq')}" if path.parent != Path() else ""
            help = f"say `seqc new {path.stem}{where}`"
        raise SpecError(Diagnostic("bad-name", f"`{args.name}` is no name of a recurrence", help=help))
    text = copied(args.like, args.name) if args.like else starter(args).replace("NAME", args.name)
    load(text)  # says what is wrong with the name
    if args.output == STDOUT:
        put(text)
        return 0
    path = Path(args.output or f"{args.name}.seq")
    if path.exists() and not path.is_dir():
        raise SpecError(Diagnostic("file-exists", f"`{path}` is there already", help="give another name with -o"))
    write(path, text)
    say(f"{path}: edit it, then `seqc check {path}`, `seqc explain {path}` and `seqc bench {path}`")
    return 0


def copied(like: str, name: str) -> str:
    """Another spec's text under a new name."""
    from seqc.cli.commands.options import spec_path
    from seqc.frontend.elaborate import load

    program = load(spec_path(like))
    return re.sub(r"^(\s*spec\s+)\w+", lambda found: found[1] + name, program.source, count=1, flags=re.MULTILINE)


def starter(args: argparse.Namespace) -> str:
    """The starter that was asked for; its name is still to be put in."""
    return CELL if args.cell else SCAN if args.scan else MATRIX


MATRIX = '''\
spec NAME
"""One line on what the recurrence is.

S_t = exp(g_t) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)        (who wrote it, where it is published)
"""

# Named dims. Batch and time are implicit. `dim K = 64` gives a default, `dim K {32, 64}` a set of sizes.
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

CELL = '''\
spec NAME
"""One line on what the cell is.

z_t = sigmoid(x_z + R_z h_{t-1} + b_z),  h_t = (1 - z_t) h_{t-1} + z_t tanh(x_n + R_n h_{t-1})     (who wrote it, and where)
"""

# Named dims. Batch and time are implicit. Each of the H heads has D units of its own; with H = 1 it is a plain cell.
dim H, D

# What is given at every step: the products of the layer's input with its weights, which need no recurrence.
input x_z[H, D], x_n[H, D]

# Parameters do not depend on time and are trained. A matrix has its dim twice.
param R_z[H, D, D], R_n[H, D, D]
param b_z[H, D] init 0

# What is carried from step to step, with its value before the first one.
state h[H, D] = 0

# One time step. A bare name is its value now, `h[t-1]` one step ago; `R @ h` is the product of a matrix and a vector.
z = sigmoid(x_z + R_z @ h[t-1] + b_z)
n = tanh(x_n + R_n @ h[t-1])
output h = (1 - z) * h[t-1] + z * n
'''

SCAN = '''\
spec NAME
"""One line on what the recurrence is.

h_t = a_t h_{t-1} + (1 - a_t) x_t,    a_t = sigmoid(f_t + b)        (who wrote it, where it is published)
"""

# A named dim. Batch and time are implicit. Every element of D has a recurrence of its own.
dim D

# What is given at every step.
input x[D], f[D]

# Parameters do not depend on time and are trained.
param b[D] init 1

# What is carried from step to step, with its value before the first one.
state h[D] = 0

# One time step. A bare name is its value now, `h[t-1]` one step ago. Linear in the state: it can run as a parallel scan.
a = sigmoid(f + b)
output h = a * h[t-1] + (1 - a) * x

# Optional: a claim about the transition, which is proved or refused.
eigenvalues h in [0, 1]
'''
