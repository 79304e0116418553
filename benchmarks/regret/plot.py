"""The bench as one picture."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.regret.contenders import LINUCB, ORACLE, OURS, PUBLISHED
from benchmarks.regret.figures import Results

_COLUMNS = 3
_STANDING_OUT = {OURS: ("black", 2.4), PUBLISHED: ("crimson", 1.8), LINUCB: ("royalblue", 1.8)}


def draw(results: Results, path: Path) -> None:
    """Writes a picture with a panel for each scenario: regret per round so far (the oracle's mean reward minus the
    policy's), against rounds; lower is better."""
    names = list(dict.fromkeys(name for found in results.values() for name in found["policies"] if name != ORACLE))
    palette = colormaps["tab20"]
    rows = -(-len(results) // _COLUMNS)
    figure = Figure(figsize=(5.2 * _COLUMNS, 0.8 + 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    lines = {}
    for axis, (scenario, found) in zip(axes, results.items(), strict=False):
        ceiling = np.array(found["policies"][ORACLE]["curve"])
        rounds = found["rounds"] * np.arange(1, len(ceiling) + 1) / len(ceiling)
        for name, policy in found["policies"].items():
            if name == ORACLE or name.startswith("mabwiser"):  # of fewer rounds
                continue
            color, width = _STANDING_OUT.get(name, (palette(names.index(name) % 20), 1.1))
            (lines[name],) = axis.plot(rounds, ceiling - policy["curve"], color=color, linewidth=width)
        axis.set_title(scenario, fontsize=10)
        axis.set_xlabel("rounds")
        axis.set_ylabel("regret per round so far")
        axis.grid(alpha=0.25)
    for axis in axes[len(results) :]:
        axis.set_axis_off()
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=7, frameon=False)
    figure.savefig(path, dpi=110)
