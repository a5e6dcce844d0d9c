"""Loops that a user writes. In: a task. Out: a contender.

A hidden Markov model and the lattice of a transducer in torch under autograd, step by step and diagonal by diagonal;
generalised advantages in numpy, a loop over the steps of whole batches, without gradients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.contender import FORWARD, Contender, Results
from benchmarks.ours import calls, leaves
from benchmarks.tasks import Task

SPECS = ("hmm", "rnnt", "gae")
NEVER = -1e30  # in place of -inf, whose logaddexp has no gradient in torch


def contender(task: Task) -> Contender:
    """The loop of a task."""
    if task.name == "gae":
        return Contender("numpy loop", {FORWARD: lambda: advantages(task)})
    run = {"hmm": markov, "rnnt": lattice}[task.name]
    return Contender("torch loop", calls(run, leaves(task), task.cotangents))


def markov(e: Tensor, A: Tensor) -> Results:
    """The forward pass: one logsumexp over pairs of states at each step."""
    moves, rows = torch.log_softmax(A, -1), []
    a = e.new_full((len(e), e.shape[2]), -float(np.log(e.shape[2])))
    for now in e.unbind(1):
        a = now + torch.logsumexp(a[:, :, None] + moves, 1)
        rows.append(a)
    return {"ll": torch.logsumexp(torch.stack(rows, 1), -1)}


def lattice(blank: Tensor, label: Tensor, first: Tensor, A_u_0: Tensor) -> Results:
    """All places of a diagonal at once: [B, T, U]."""
    B, T, U = blank.shape
    u = torch.arange(U)
    before, diagonals = blank.new_full((B, U), NEVER), []
    for d in range(T + U - 1):
        t = (d - u).clamp(0, T - 1)
        inside = (d - u >= 0) & (d - u < T)
        stay = torch.where(d - u > 0, before + blank[:, (t - 1).clamp(min=0), u], NEVER)
        past = torch.cat([A_u_0[:, t[:1]].clamp(min=NEVER), before[:, :-1] + label[:, t, (u - 1).clamp(min=0)][:, 1:]], 1)
        now = torch.where(first[:, t, u] > 0, 0.0, torch.logaddexp(stay, past))
        before = torch.where(inside, now, NEVER)
        diagonals.append(before)
    whole = torch.stack(diagonals, 1)
    A = whole[:, torch.arange(T)[:, None] + u, u]
    return {"A": A, "A_u_T": A[:, :, -1]}


def advantages(task: Task) -> Results:
    """From the last step back."""
    r, v, done = (task.inputs[name].numpy() for name in ("r", "v", "done"))
    gamma, lam = (float(task.params[name]) for name in ("gamma", "lambda_"))
    A, last = np.zeros_like(r), np.zeros(len(r), r.dtype)
    after = np.zeros(len(r), r.dtype)
    for t in range(r.shape[1] - 1, -1, -1):
        kept = gamma * (1 - done[:, t])
        last = A[:, t] = r[:, t] + kept * after - v[:, t] + lam * kept * last
        after = v[:, t]
    return {"A": A, "returns": A + v}
