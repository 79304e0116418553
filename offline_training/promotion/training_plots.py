"""Plots of a training run."""

import numpy as np
from matplotlib.figure import Figure

from feature_store.arrays import Float64
from feature_store.graph import Graph
from offline_training.train_models import Trained


def training_figures(trained: Trained, graph: Graph) -> dict[str, Figure]:
    """Figures by file name: the towers' loss per epoch, the ranker's calibration on users it was not fitted on, and how
    many items the graph connects, and how often."""
    epochs = list(range(1, len(trained.losses) + 1))
    return {
        "training_loss.png": _line(epochs, trained.losses, "epoch", "mean loss", "Two towers"),
        "calibration.png": _calibration(trained.ranker.curve),
        "graph.png": _graph(graph),
    }


def _line(x: list[int], y: list[float], x_label: str, y_label: str, title: str) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(x, y, marker="o", markersize=3)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    return figure


def _graph(graph: Graph) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    coverage, degree = figure.subplots(1, 2)
    connected = np.zeros(max(1, graph.size), np.bool_)
    shares = []
    for cluster in range(graph.clusters):
        connected[graph.items_of(cluster)] = True
        shares.append(float(connected.mean()))
    coverage.plot(range(1, graph.clusters + 1), shares)
    coverage.set(xlabel="clusters", ylabel="share of items connected", title="Cluster-item graph: coverage", ylim=0)
    degrees = np.sort(np.diff(graph.item_start))[::-1]
    degree.plot(range(1, len(degrees) + 1), degrees)
    degree.set(xlabel="items, most connected first", ylabel="edges", title="Edges per item", xscale="log", ylim=0)
    for axes in (coverage, degree):
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
