"""`python -m examples.lorenz`: a piecewise-linear network learns a chaotic system with teacher forcing, and then runs free.

In: nothing; the Lorenz system is integrated here. Out: lines on the terminal and `lorenz.png`: the growth of gradients without
forcing, with a constant share of it and with one that follows the network's Jacobians; the loss; and the attractor that the
trained network draws in a closed loop of its own, beside the true one.

What to see: without forcing, gradients through a trained network grow by the system's own Lyapunov exponent, e-fold every few
dozen steps, until an update means nothing. A share of the true state in every step bounds them (generalised teacher
forcing, Hess et al. 2023, arXiv:2306.04406), and what is learnt under it still runs free: `generate` is one call, with no loop
in Python.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPEC = '''
spec lorenz_net
"""A shallow piecewise-linear network (Hess et al. 2023, arXiv:2306.04406) with a share of the true state in every step."""
dim Z, L
input x[Z], alpha
param A[Z] init 0.9, W_1[Z, L] init normal(0, 0.1), W_2[L, Z] init normal(0, 0.6), h_1[Z] init 0, h_2[L] init uniform(-1, 1)
state z[Z] = 0
used = alpha * x + (1 - alpha) * z[t-1]
z = A * used + W_1 @ relu(W_2 @ used + h_2) + h_1
output z
feedback x = z[t-1]
'''
STEP = 0.02  # time between two observations
BURNT = 2000  # steps before the trajectory is on the attractor


def trajectory(steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[steps, 3]: the Lorenz system (1963) by the classical Runge-Kutta method, each coordinate of mean 0 and variance 1."""

    def slope(p: Tensor) -> Tensor:
        x, y, z = p.unbind()
        return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    p, rows = torch.tensor([1.0, 1.0, 25.0], dtype=torch.float64), []
    for _ in range(steps + BURNT):
        a = slope(p)
        b = slope(p + STEP / 2 * a)
        c = slope(p + STEP / 2 * b)
        p = p + STEP / 6 * (a + 2 * b + 2 * c + slope(p + STEP * c))
        rows.append(p)
    found = torch.stack(rows[BURNT:])
    return ((found - found.mean(0)) / found.std(0)).to(dtype)


def forced(layer: Any, x: Tensor, share: float, z_0: Tensor) -> Tensor:
    """[B, T, Z] -> the network's next states, of which each step took a share of the true one."""
    states: Tensor = layer(x, torch.full(x.shape[:2], share), z_0=z_0).z
    return states


def adaptive(layer: Any, x: Tensor) -> float:
    """The least share that keeps products of Jacobians from growing, by their largest singular values along the data."""
    with torch.no_grad():
        open_ = (x.flatten(0, -2) @ layer.W_2.T + layer.h_2 > 0).to(x.dtype)
        jacobians = torch.diag(layer.A) + torch.einsum("zl,nl,ly->nzy", layer.W_1, open_, layer.W_2)
        mean = torch.linalg.matrix_norm(jacobians, 2).log().mean().exp()
    return float(max(0.0, 1 - 1 / mean))


def growth(layer: Any, x: Tensor, share: float) -> list[float]:
    """By the number of steps: the norm of the gradient of the last state with respect to the first."""
    found = []
    for steps in range(20, x.shape[1] + 1, 20):
        first = x[:1, 0].clone().requires_grad_()
        last = forced(layer, x[:1, :steps], share, first)[0, -1]
        rows = [torch.autograd.grad(last[i], first, retain_graph=True)[0][0] for i in range(last.shape[0])]
        found.append(torch.linalg.matrix_norm(torch.stack(rows), 2).item())
    return found


def main(arguments: list[str] | None = None) -> int:
    """Train, measure gradients, run free, plot."""
    import seqc

    parser = argparse.ArgumentParser(prog="python -m examples.lorenz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--updates", type=int, default=1500, help="of the network (default: 1500)")
    parser.add_argument("--data", type=int, default=10_000, help="observations to learn from (default: 10000)")
    parser.add_argument("--units", type=int, default=50, help="of its hidden layer (default: 50)")
    parser.add_argument("--free", type=int, default=10_000, help="steps of the closed loop (default: 10000)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the plot")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = trajectory(args.data)
    layer = seqc.compile(SPEC, args.backend).Module(Z=3, L=args.units)
    optimiser = torch.optim.Adam(layer.parameters(), lr=2e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.updates)
    losses: list[float] = []
    for update in range(args.updates):
        starts = torch.randint(len(data) - 101, (16,)).tolist()
        window = torch.stack([data[i : i + 101] for i in starts])
        share = adaptive(layer, window[:, :-1])
        loss = (forced(layer, window[:, :-1], share, window[:, 0]) - window[:, 1:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimiser.step()
        falling.step()
        losses.append(loss.item())
        if update % max(args.updates // 10, 1) == 0:
            print(f"update {update}: loss {losses[-1]:.4f}, {share:.2f} of the true state in a step")
    x = data[None, :200]
    share = adaptive(layer, data[None, :-1])
    shares = {"no forcing": 0.0, "a twentieth of the true state": 0.05, f"as Jacobians ask: {share:.2f}": share}
    grown = {name: growth(layer, x, one) for name, one in shares.items()}
    for name, norms in grown.items():
        print(f"{name}: gradients over {x.shape[1]} steps times {norms[-1]:.3g}")
    with torch.no_grad():
        alpha = torch.ones(1, args.free)  # the loop's own state is all there is
        free = layer.generate(data[None, :1], alpha, steps=args.free, z_0=data[None, 0]).z[0]
    print(f"free run: mean {free.mean(0).tolist()}, deviation {free.std(0).tolist()} (true ones: 0 and 1)")
    plot(grown, losses, data, free, args.out / "lorenz.png")
    print(f"written to {args.out / 'lorenz.png'}")
    return 0


def plot(grown: dict[str, list[float]], losses: list[float], data: Tensor, free: Tensor, path: Path) -> None:
    """Gradients over steps, the loss, and both attractors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ((left, right), (true, own)) = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for name, norms in grown.items():
        left.plot(range(20, 20 * len(norms) + 1, 20), norms, label=name)
    left.set(yscale="log", xlabel="steps", ylabel="norm of d last state / d first state")
    left.legend()
    right.plot(losses)
    right.set(yscale="log", xlabel="update", ylabel="mean squared error, one step ahead")
    for axes, points, title in ((true, data, "the Lorenz system"), (own, free, "the network in its own loop")):
        axes.plot(points[:5000, 0].numpy(), points[:5000, 2].numpy(), linewidth=0.3)
        axes.set(xlabel="x", ylabel="z", title=title, xlim=(-3, 3), ylim=(-3, 3.5))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
