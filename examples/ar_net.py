"""`python -m examples.ar_net`: an autoregressive process by gradient descent and sparsity, against least squares.

In: nothing; a series is drawn from an AR(20) process of which three coefficients are not 0. Out: lines on the terminal and
`ar_net.png`: the coefficients that least squares finds, those that AR-Net finds (Triebe et al. 2019, arXiv:1911.12436), and a
forecast by either. The error is the paper's: the sum of absolute differences from the true coefficients over that of the true
ones, in percent.

What to see: least squares spreads the noise over all twenty coefficients; the penalty presses most of those that are 0
towards it, and the error falls by half. The forecast is a closed loop, `generate`, of the same spec that was trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

LAGS = 20
TRUE = {1: 0.2, 3: 0.3, 10: -0.5}  # lag -> coefficient, as in the paper

SPEC = f'''
spec ar_net
"""AR-Net without a hidden layer (Triebe et al. 2019, arXiv:1911.12436): x_t from the {LAGS} values before it."""
dim L = {LAGS}
input x
param theta[L] init 0
output y = sum[L](theta * x[t - index[L] - 1])
feedback x = y
'''


def series(steps: int, theta: Tensor, generator: torch.Generator) -> Tensor:
    """[steps]: the process with noise of variance 1."""
    x = torch.zeros(steps + 200)
    noise = torch.randn(len(x), generator=generator)
    for t in range(LAGS, len(x)):
        x[t] = theta @ x[t - LAGS : t].flip(0) + noise[t]
    return x[200:]


def penalty(theta: Tensor) -> Tensor:
    """The paper's: near 0 for a coefficient that is 0, and hardly more for a large one than for a middling one."""
    return (2 / (1 + torch.exp(-3 * theta.abs().clamp_min(1e-9) ** (1 / 3))) - 1).mean()


def error(theta: Tensor, true: Tensor) -> float:
    """Percent of the true coefficients' sum by which those found differ."""
    return float(100 * (theta - true).abs().sum() / true.abs().sum())


def main(arguments: list[str] | None = None) -> int:
    """Fit by both ways, forecast, plot."""
    import seqc

    parser = argparse.ArgumentParser(prog="python -m examples.ar_net", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="observations (default: 1000)")
    parser.add_argument("--updates", type=int, default=1500, help="of AR-Net (default: 1500)")
    parser.add_argument("--weight", type=float, default=1.0, help="of the penalty (default: 1)")
    parser.add_argument("--ahead", type=int, default=40, help="steps of the forecast (default: 40)")
    parser.add_argument("--backend", default="auto", help="of seqc.compile (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the plot")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    true = torch.zeros(LAGS)
    for lag, value in TRUE.items():
        true[lag - 1] = value
    every = series(args.steps + args.ahead, true, torch.Generator().manual_seed(0))
    x = every[: args.steps]
    rows = x.unfold(0, LAGS, 1)[:-1].flip(1)
    squares = torch.linalg.lstsq(rows.double(), x[LAGS:, None].double()).solution[:, 0].float()
    made = seqc.compile(SPEC, args.backend)
    layer = made.Module()
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.updates)
    for _ in range(args.updates):
        missed = (layer(x[None]).y[0, LAGS:] - x[LAGS:]).square().mean()
        optimiser.zero_grad()
        (missed + args.weight * penalty(layer.theta)).backward()
        optimiser.step()
        falling.step()
    found = layer.theta.detach()
    print(f"least squares: {error(squares, true):.1f} percent of the coefficients missed; AR-Net: {error(found, true):.1f}")
    with torch.no_grad():
        ahead = {
            name: made.generate(x[None], theta, steps=len(every)).y[0, args.steps :]
            for name, theta in (("least squares", squares), ("AR-Net", found))
        }
    for name, y in ahead.items():
        print(f"{name}: forecast of {args.ahead} steps, mean squared error {(y - every[args.steps :]).square().mean():.3f}")
    plot(true, squares, found, every[args.steps - 60 :], ahead, args.out / "ar_net.png")
    print(f"written to {args.out / 'ar_net.png'}")
    return 0


def plot(true: Tensor, squares: Tensor, found: Tensor, shown: Tensor, ahead: dict[str, Tensor], path: Path) -> None:
    """Coefficients over lags, and the forecasts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    lags = range(1, LAGS + 1)
    left.bar(lags, true.numpy(), color="0.8", label="true")
    left.plot(lags, squares.numpy(), "x", label="least squares")
    left.plot(lags, found.numpy(), "o", fillstyle="none", label="AR-Net")
    left.set(xlabel="lag", ylabel="coefficient")
    right.plot(range(-60, len(shown) - 60), shown.numpy(), color="0.7", label="series")
    for name, y in ahead.items():
        right.plot(y.numpy(), label=name)
    right.set(xlabel="steps ahead")
    for axes in (left, right):
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
