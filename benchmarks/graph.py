"""`matchloop bench graph`: what the cluster-item graph keeps of retrieval and whom it reaches, for many sizes.

The two towers are trained as `matchloop train` trains them, on what came before a moment; their users are clustered and
connected anew for every size, and asked about what they came to like. From this plot the defaults are chosen:
infra/decisions/graph-size.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.retrieval.datasets import Dataset, moment_at, movielens_1m_in_time, movielens_100k, movielens_small
from benchmarks.retrieval.ours import training_data
from feature_store.arrays import Float32
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.clusters import cluster_count
from offline_training.evaluation.baselines import Interactions
from offline_training.evaluation.graph_quality import Asked, GraphQuality, graph_grid
from offline_training.progress import Progress, section
from offline_training.retrieval.training import fit_two_tower
from offline_training.settings import TrainingSettings

CLUSTERS, NEAREST, ACTIVE = (16, 32, 64, 128, 256, 512), (25, 50, 100, 200, 400), (1, 3, 5, 10, 20)
KEPT_TARGET, COVERAGE_TARGET, LIFT_TARGET = 0.9, 1.0, 1.2
MOST_USERS = 1_500  # are trained on: minutes on two cores, where all of MovieLens-1M would take an hour


class Source(NamedTuple):
    """A data set, and at what share of its time span it is cut; None: of its ratings, where most are of one time."""

    read: Callable[[Path], Dataset]
    span: float | None


SOURCES = {
    "ml-100k": Source(movielens_100k, 0.8),
    "ml-latest-small": Source(movielens_small, 0.8),
    "ml-1m": Source(movielens_1m_in_time, None),
}
_RATINGS = 0.8


def run(
    data: Path | None, seed: int, progress: Progress, *, dataset: str, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. out: folder for the picture.

    Raises InvalidInput if data is missing or the data set is not one of SOURCES.
    """
    if dataset not in SOURCES:
        raise InvalidInput(f"Bench 'graph' knows {', '.join(SOURCES)}, not {dataset!r}.")
    if data is None or not (data / dataset).is_dir():
        raise InvalidInput(f"Bench 'graph' needs --data: a folder that holds {dataset}.")
    training = load().training.model_copy(update={"seed": seed})
    read, span = SOURCES[dataset]
    log = some_users(read(data), MOST_USERS, seed)
    time = log.log.time
    moment = moment_at(time, span) if span is not None else int(np.quantile(time, _RATINGS))
    items, users, asked = _trained(log, moment, training, section(progress, 0.0, 0.8))

    def grid(clusters: Any, nearest: Any, active: Any, part: Progress) -> list[GraphQuality]:
        return graph_grid(items, users, asked, clusters, nearest, active, seed, part)

    width = min(training.edges_per_cluster, len(items))
    count = cluster_count(training.clusters, len(users), len(items), width)
    [chosen] = grid([count], [width], [min(training.active_clusters, count)], section(progress, 0.8, 0.82))
    sizes = grid(CLUSTERS, NEAREST, ACTIVE, section(progress, 0.82, 1.0))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(sizes, chosen, f"{dataset}: {len(users)} users, {len(items)} items", out / f"graph-{dataset}.png")
    results = {
        "dataset": dataset,
        "users": len(users),
        "items": len(items),
        "asked": len(asked.vectors),
        "chosen": chosen._asdict(),
        "grid": [quality._asdict() for quality in sizes],
    }
    return results, [
        Goal(name="kept", value=chosen.kept, target=KEPT_TARGET, unit="", better="higher"),
        Goal(name="coverage", value=chosen.coverage, target=COVERAGE_TARGET, unit="", better="higher"),
        Goal(name="lift", value=chosen.lift, target=LIFT_TARGET, unit="x a random graph", better="higher"),
    ]


def draw(grid: list[GraphQuality], chosen: GraphQuality, title: str, path: Path) -> None:
    """Writes a picture: what is kept against the number of nearest items, a panel for each number of active clusters
    and a line for each number of clusters; and whom the graph reaches, as many times as a random one."""
    panels = sorted({quality.active_clusters for quality in grid})
    figure = Figure(figsize=(3.6 * (len(panels) + 1), 4), layout="constrained")
    axes = figure.subplots(1, len(panels) + 1)
    for axis, active in zip(axes, [*panels, chosen.active_clusters], strict=True):
        reach = axis is axes[-1]
        for count in sorted({quality.clusters for quality in grid}):
            line = [q for q in grid if (q.clusters, q.active_clusters) == (count, active)]
            nearest = [q.nearest_items for q in line]
            axis.plot(nearest, [q.lift if reach else q.kept for q in line], marker="o", label=str(count))
        if active == chosen.active_clusters:
            value = chosen.lift if reach else chosen.kept
            axis.plot(chosen.nearest_items, value, marker="*", markersize=16, color="black")
        axis.set(xscale="log", ylim=(0, None if reach else 1.15), xlabel="nearest items of a cluster W")
        axis.set_xticks(NEAREST, [str(count) for count in NEAREST])
        axis.minorticks_off()
        axis.set_title(
            "likes reached, times a random graph's" if reach else f"recall@50 kept, K = {active}", fontsize=10
        )
        axis.grid(alpha=0.3)
    axes[0].legend(title="clusters C", fontsize=8)
    figure.suptitle(f"{title}; star: C = {chosen.clusters}, W = {chosen.nearest_items} (default)")
    figure.savefig(path, dpi=110)


def some_users(dataset: Dataset, most: int, seed: int) -> Dataset:
    """The data set with at most so many of its people, drawn at random."""
    log = dataset.log
    if log.users <= most:
        return dataset
    kept = np.sort(np.random.default_rng(seed).permutation(log.users)[:most])
    rows = np.flatnonzero(np.isin(log.user, kept))
    own = log.take(rows)
    return Dataset(
        log=Interactions(np.searchsorted(kept, own.user), own.item, own.time, most, log.items),
        kinds=dataset.kinds[rows],
        positive=dataset.positive[rows],
        items=dataset.items,
        profiles=[dataset.profiles[user] for user in kept],
    )


def _trained(
    dataset: Dataset, moment: int, training: TrainingSettings, progress: Progress
) -> tuple[Float32, Float32, Asked]:
    """Vectors of items and users as of the moment (ms), and the users who came to like something after it."""
    log = dataset.log
    before = log.time < moment
    known = training_data(dataset, np.flatnonzero(before))
    sequences = known.sequences
    fitted = fit_two_tower(known.catalogue, sequences, sequences.before(moment), training, progress)
    vectors, everybody = fitted.model.item_vectors(), np.arange(log.users)
    histories = sequences.histories(everybody, np.diff(sequences.start), training.history_length)
    users = fitted.model.user_vectors(vectors, histories, sequences.profile)
    seen, positives = np.zeros((2, log.users, log.items), np.bool_)
    seen[log.user[before], log.item[before]] = True
    liked = ~before & dataset.positive
    positives[log.user[liked], log.item[liked]] = True
    positives &= ~seen
    asked = np.flatnonzero(positives.any(axis=1))
    return vectors, users, Asked(users[asked], seen[asked], positives[asked])
