"""The bench as one picture."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.retrieval.protocols import TEST
from benchmarks.retrieval.report import OURS


def draw(results: dict[str, Any], published: dict[str, dict[str, float]], path: Path) -> None:
    """Writes a picture with a panel for each metric of the test: a bar for each model with the 95 % interval over
    users; what others have published of themselves are lines."""
    models = {model: parts["all"] for model, parts in results[TEST]["models"].items()}
    metrics = list(next(iter(models.values())))
    figure = Figure(figsize=(4.8 * len(metrics), 1.2 + 0.32 * len(models)), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        ranked = sorted(models, key=lambda model: models[model][metric]["mean"])
        mean = np.array([models[model][metric]["mean"] for model in ranked])
        high = np.array([models[model][metric]["high"] for model in ranked])
        colors = ["black" if model in OURS else "lightsteelblue" for model in ranked]
        axis.barh(ranked, mean, xerr=high - mean, color=colors, ecolor="dimgray", capsize=2)
        for style, (name, figures) in zip(("--", ":", "-.", "-"), published.items(), strict=False):
            if metric in figures:
                axis.axvline(figures[metric], color="crimson", linestyle=style, linewidth=1, label=f"{name}, published")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, loc="lower right")
        axis.set_title(metric, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=110)
