"""Rows of sweeps -> plots: time a token against T, batch and dims. In: rows. Out: PNG files, their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.contender import PARTS
from benchmarks.entry import Row

AXES = {"T": "steps", "B": "batch", "dims": "size of K and V, or of D"}


def plot_sweeps(rows: Mapping[str, Sequence[Row]], folder: Path) -> list[str]:
    """One picture for each spec: a column for each axis that was swept, a row for each part."""
    labels = list(dict.fromkeys(row.label for part in rows.values() for row in part))
    return [plot(label, rows, folder) for label in labels]


def plot(label: str, rows: Mapping[str, Sequence[Row]], folder: Path) -> str:
    """The picture of one spec."""
    mine = {axis: [r for r in found if r.label == label and r.seconds] for axis, found in rows.items()}
    parts = [part for part in PARTS if any(r.part == part for found in mine.values() for r in found)]
    size = (4.2 * len(mine), 3.2 * len(parts))
    figure, grid = plt.subplots(len(parts), len(mine), figsize=size, layout="constrained", squeeze=False)
    for i, part in enumerate(parts):
        for j, (axis, found) in enumerate(mine.items()):
            draw(grid[i][j], axis, [r for r in found if r.part == part])
            grid[i][j].set_title(part)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(label)
    path = folder / f"{label.replace(' ', '_')}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path.name


def draw(axes: Axes, axis: str, rows: Sequence[Row]) -> None:
    """Microseconds a token of every contender, quartiles as bars."""
    lines: dict[str, list[tuple[int, float, float, float]]] = defaultdict(list)
    for row in rows:
        assert row.seconds is not None
        tokens = row.sizes["B"] * row.sizes["T"]
        low, middle, high = (1e6 * x / tokens for x in row.seconds)
        lines[row.contender].append((swept(axis, row), middle, middle - low, high - middle))
    for name, points in lines.items():
        x, y, below, above = zip(*sorted(points), strict=True)
        axes.errorbar(x, y, (below, above), marker="o", markersize=3, capsize=2, label=name)
    axes.set(xscale="log", yscale="log", xlabel=AXES[axis], ylabel="us a token")
    places = sorted({swept(axis, row) for row in rows})
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def swept(axis: str, row: Row) -> int:
    """The extent that a sweep varies."""
    if axis != "dims":
        return row.sizes[axis]
    return row.sizes["K"] if "K" in row.sizes else row.sizes["D"]
