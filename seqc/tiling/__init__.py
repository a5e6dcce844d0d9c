"""Tiles: choose a kernel's chunk, block sizes, warps and stages for a target, and say what bound the choice.

`problem` and `expression` state a choice among finite domains, `solve` answers it with z3 (its one owner), `enumerate`
answers it again by trying everything, `kernel_problem` states the problem of one kernel, `verdicts` and `quarantine`
hold what compilers and bug reports have said of kernels.
"""
