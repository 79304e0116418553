"""`matchloop bench graph`: what the cluster-item graph keeps of retrieval, for a grid of its sizes.

The towers are trained by the project's own training on what came before a moment. Whoever came later is asked about
once, halfway through what they did then: the first half is their history, what they like of the second is to be found.
Users are clustered and connected anew for every size. From this plot the defaults are chosen:
infra/decisions/graph-size.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.retrieval.datasets import Dataset, movielens_1m_in_time, movielens_100k, movielens_small
from benchmarks.retrieval.ours import catalogue_of, item_features, sequences
from feature_store.arrays import Bool, Float32, Int64
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.clusters import cluster_count
from offline_training.evaluation.graph_quality import Asked, GraphQuality, graph_grid
from offline_training.progress import Progress, section
from offline_training.retrieval.training import fit_two_tower
from offline_training.settings import TrainingSettings

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "ml-100k": movielens_100k,
    "ml-latest-small": movielens_small,
    "ml-1m": movielens_1m_in_time,
}
MOST_ASKED = 1_000  # users
CLUSTERS, EDGES, ACTIVE = (16, 32, 64, 128, 256, 512), (25, 50, 100, 200, 400), (1, 3, 5, 10, 20)
KEPT_TARGET, COVERAGE_TARGET = 0.9, 0.99
_TRAINED = 0.9  # of the bench's time


class Vectors(NamedTuple):
    """What the towers make of a data set: items (I, d), the users that were trained on (U, d), and who is asked."""

    items: Float32
    users: Float32
    asked: Asked


def run(
    data: Path | None, seed: int, progress: Progress, *, dataset: str, until: float, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. until: share of the interactions that is trained on, in (0, 1). out: folder
    for the picture.

    Raises InvalidInput if data is missing, the data set is none of DATASETS, or nobody is left to be asked.
    """
    if dataset not in DATASETS:
        raise InvalidInput(f"Bench 'graph' knows {', '.join(DATASETS)}, not {dataset!r}.")
    if data is None or not (data / dataset).is_dir():
        raise InvalidInput(f"Bench 'graph' needs --data: a folder that holds {dataset}.")
    training = load().training.model_copy(update={"seed": seed})
    items, users, asked = vectors_at(DATASETS[dataset](data), until, training, section(progress, 0.0, _TRAINED))
    grid = graph_grid(items, users, asked, CLUSTERS, EDGES, ACTIVE, seed, section(progress, _TRAINED, 0.99))
    width = min(training.edges_per_cluster, len(items))
    count = cluster_count(training.clusters, len(users), len(items), width)
    active = min(training.active_clusters, count)
    [chosen] = graph_grid(items, users, asked, [count], [width], [active], seed, section(progress, 0.99, 1.0))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(grid, chosen, f"{dataset}: {len(users)} users, {len(items)} items", out / f"graph-{dataset}.png")
    results = {
        "dataset": dataset,
        "until": until,
        "users": len(users),
        "items": len(items),
        "asked": len(asked.vectors),
        "chosen": chosen._asdict(),
        "grid": [quality._asdict() for quality in grid],
    }
    return results, [
        Goal(name="kept", value=chosen.kept, target=KEPT_TARGET, unit="", better="higher"),
        Goal(name="coverage", value=chosen.coverage, target=COVERAGE_TARGET, unit="", better="higher"),
    ]


def draw(grid: list[GraphQuality], chosen: GraphQuality, title: str, path: Path) -> None:
    """Writes a picture: what is kept against the number of edges, a panel for each number of active clusters and a line
    for each number of clusters; and the coverage."""
    panels = sorted({quality.active_clusters for quality in grid})
    figure = Figure(figsize=(3.6 * (len(panels) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(panels) + 1)
    for axis, active in zip(axes, [*panels, panels[0]], strict=True):
        coverage = axis is axes[-1]
        for count in sorted({quality.clusters for quality in grid}):
            line = [q for q in grid if (q.clusters, q.active_clusters) == (count, active)]
            edges = [q.edges_per_cluster for q in line]
            axis.plot(edges, [q.coverage if coverage else q.kept for q in line], marker="o", label=str(count))
        if coverage or active == chosen.active_clusters:
            value = chosen.coverage if coverage else chosen.kept
            axis.plot(chosen.edges_per_cluster, value, marker="*", markersize=16, color="black")
        axis.set(xscale="log", ylim=(0, 1.15), xlabel="edges per cluster W")
        axis.set_xticks(EDGES, [str(edges) for edges in EDGES])
        axis.minorticks_off()
        axis.set_title("items with an edge" if coverage else f"recall@50 kept, K = {active}", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(title="clusters C", fontsize=8)
    figure.suptitle(f"{title}; star: C = {chosen.clusters}, W = {chosen.edges_per_cluster} (default)")
    figure.savefig(path, dpi=110)


def vectors_at(dataset: Dataset, until: float, training: TrainingSettings, progress: Progress) -> Vectors:
    """Trains the towers on the first share `until` of the interactions, in the order of time, and asks at most
    MOST_ASKED of the users who came later. Raises InvalidInput if none of them liked anything new."""
    moment = int(np.quantile(dataset.log.time, until))
    past = np.flatnonzero(dataset.log.time < moment)
    progress(0.0, "reading the log")
    log, positive, known = dataset.log.take(past), dataset.positive[past], sequences(dataset, past)
    catalogue = catalogue_of(dataset, item_features(log, positive, moment))
    model = fit_two_tower(catalogue, known, known.before(moment), training, progress).model
    items = model.item_vectors()

    everything = sequences(dataset, np.arange(len(dataset.positive)))
    before, events = everything.before(moment), np.diff(everything.start)
    halfway = before + (events - before) // 2
    rest = ~everything.among_first(halfway)
    seen, positives = (
        _by_user(everything.user[rows], everything.item[rows], (len(events), len(items)))
        for rows in (~rest, rest & everything.positive)
    )
    positives &= ~seen
    asked = np.flatnonzero((events > before) & positives.any(axis=1))
    if not len(asked):
        raise InvalidInput("Nobody liked anything new after the moment that training ends with. Hold out more.")
    if len(asked) > MOST_ASKED:
        asked = np.sort(np.random.default_rng(training.seed).permutation(asked)[:MOST_ASKED])
    everybody = np.flatnonzero(np.diff(known.start))

    def encoded(users: Int64, count: Int64) -> Float32:
        histories = everything.histories(users, count, model.history_length)
        return model.user_vectors(items, histories, everything.profile[users])

    return Vectors(
        items,
        encoded(everybody, before[everybody]),
        Asked(encoded(asked, halfway[asked]), seen[asked], positives[asked]),
    )


def _by_user(user: Int64, item: Int64, shape: tuple[int, int]) -> Bool:
    found: Bool = np.zeros(shape, np.bool_)
    found[user, item] = True
    return found
