"""The bench as one picture."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes a picture with a row for each world: how many likes per 1,000 planned impressions each arm is ahead of the
    first one, with 95 % intervals over users; and the same so far, turn by turn."""
    figure = Figure(figsize=(11, 0.6 + 2.8 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False)
    palette = colormaps["tab20"]
    for (bars, lines), (name, found) in zip(axes, results.items(), strict=True):
        base, *others = found["arms"].items()
        ahead = np.array([own["difference"]["mean"] for _, own in others])
        error = ahead - [own["difference"]["low"] for _, own in others]
        colors = [palette(k) for k in range(len(others))]
        bars.barh([arm for arm, _ in others], ahead, xerr=error, color=colors, ecolor="dimgray")
        bars.axvline(0, color="black", linewidth=0.8)
        bars.invert_yaxis()
        bars.set_title(f"{name}: ahead of {base[0]}, {base[1]['likes']:.1f} likes per 1,000", fontsize=10)
        turns = np.arange(1, found["turns"] + 1)
        for (arm, own), color in zip(others, colors, strict=True):
            so_far = np.cumsum(np.subtract(own["by_turn"], base[1]["by_turn"])) / turns
            lines.plot(turns, so_far, color=color, label=arm)
        lines.axhline(0, color="black", linewidth=0.8)
        lines.set_title(f"{name}: the same up to each turn", fontsize=10)
        for axis in (bars, lines):
            axis.grid(alpha=0.25)
    axes[0, 1].legend(fontsize=8)
    axes[-1, 0].set_xlabel("likes per 1,000 planned impressions, minus the first arm's")
    axes[-1, 1].set_xlabel("turns")
    figure.savefig(path, dpi=110)
