"""The demo's two plots. In: losses, or seconds. Out: PNG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Times = dict[int, dict[str, tuple[float, float]]]


def plot_loss(losses: list[float], before: float, after: float, path: Path) -> None:
    """The loss of every update, its running mean, and the held-out loss at both ends."""
    window = max(len(losses) // 20, 1)
    smooth = [sum(losses[i : i + window]) / window for i in range(len(losses) - window + 1)]
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    axes.plot(losses, color="0.8", label="each update")
    axes.plot(range(window - 1, len(losses)), smooth, label=f"mean of {window}")
    axes.plot([0, len(losses)], [before, after], "o", color="C3", label="held-out files")
    axes.set(xlabel="update", ylabel="bits per character", title="Training on Python's standard library")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_speed(times: Times, shape: dict[str, int], path: Path) -> None:
    """Milliseconds over T, of the eager loop and of the compiled form, forward and forward+backward."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    lengths = sorted(times)
    for axes, name in zip(panels, ("forward", "forward+backward"), strict=True):
        for i, label in enumerate(("eager loop", "seqc")):
            axes.plot(lengths, [1e3 * times[T][name][i] for T in lengths], "o-", label=label)
        axes.set(xscale="log", yscale="log", xlabel="T", title=name)
        axes.set_xticks(lengths, [str(T) for T in lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds")
    panels[0].legend()
    figure.suptitle("gla, float32, " + ", ".join(f"{name} = {size}" for name, size in shape.items()))
    figure.savefig(path, dpi=120)
    plt.close(figure)
