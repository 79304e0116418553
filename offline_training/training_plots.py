"""Plots of a training run."""

from matplotlib.figure import Figure

from offline_training.models import Trained
from offline_training.ranking.dataset import Float64


def training_figures(trained: Trained, coverage: Float64) -> dict[str, Figure]:
    """Figures by file name: the towers' loss per epoch, the ranker's calibration on users it was not fitted on, and the
    graph's coverage. coverage (C,): distinct items connected to the first 1..C clusters, as shares of the catalogue."""
    epochs = list(range(1, len(trained.losses) + 1))
    clusters = list(range(1, len(coverage) + 1))
    return {
        "training_loss.png": _line(epochs, trained.losses, "epoch", "mean loss", "Two towers: in-batch softmax"),
        "calibration.png": _calibration(trained.ranker.curve),
        "coverage.png": _line(
            clusters, coverage.tolist(), "clusters", "share of items connected", "Cluster-item graph: coverage"
        ),
    }


def _line(x: list[int], y: list[float], x_label: str, y_label: str, title: str) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(x, y, marker="o", markersize=3)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    return figure


def _calibration(curve: Float64) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    top = float(curve[:, 1:].max(initial=0.01)) * 1.05
    axes.plot([0, top], [0, top], color="grey", linewidth=1, label="perfect")
    axes.plot(curve[:, 1], curve[:, 2], marker="o", label="ranker")
    axes.set(xlabel="predicted probability of a reward", ylabel="observed", title="Calibration on held-back users")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure
