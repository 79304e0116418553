"""`matchloop bench graph`: what the cluster-item graph keeps of retrieval, for a grid of its sizes.

A release is trained as `matchloop train` trains one; its users are clustered and connected anew for every size. From
this plot the defaults are chosen: infra/decisions/graph-size.md.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.settings import Settings, load
from offline_training.clusters import cluster_count
from offline_training.data.importer import import_data
from offline_training.data.lake import positives_from, time_at_share
from offline_training.data.sources import Mapping as Columns
from offline_training.evaluation.graph_quality import Asked, GraphQuality, graph_grid
from offline_training.evaluation.holdout import asked_user, held_out_questions
from offline_training.progress import Progress, section
from offline_training.release.encoding import encode_users
from offline_training.release.write import write_release
from offline_training.train_models import train_models
from offline_training.training_data import read_training_data
from online_serving.snapshot import Snapshot

ML_100K, ML_1M = "ml-100k", "ml-1m"
TRAIN_SHARE = 0.8  # of ml-100k's time span
HELD_OUT = 10  # of everybody's last ratings, for ml-1m: most of its users came and went within a day
CLUSTERS, EDGES, ACTIVE = (16, 32, 64, 128, 256, 512), (25, 50, 100, 200, 400), (1, 3, 5, 10, 20)
KEPT_TARGET = 0.9
_DAY, _END = 86_400, 1_000_000_000  # s


def run(
    data: Path | None, seed: int, progress: Progress, *, dataset: str, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. out: folder for the picture.

    Raises InvalidInput if data is missing or the data set is not one of ml-100k and ml-1m.
    """
    if dataset not in (ML_100K, ML_1M):
        raise InvalidInput(f"Bench 'graph' knows {ML_100K} and {ML_1M}, not {dataset!r}.")
    if data is None or not (data / dataset).is_dir():
        raise InvalidInput(f"Bench 'graph' needs --data: a folder that holds {dataset}.")
    with tempfile.TemporaryDirectory(prefix="matchloop-graph-") as scratch:
        given = load()
        training = given.training.model_copy(update={"seed": seed})
        settings = given.model_copy(update={"home": Path(scratch), "training": training})
        source = data / dataset if dataset == ML_100K else _by_last(data / dataset, Path(scratch) / "source")
        items, users, asked = _trained(settings, source, dataset, section(progress, 0.0, 0.8))
    progress(0.8, "clustering and connecting the users in every size")
    grid = graph_grid(items, users, asked, CLUSTERS, EDGES, ACTIVE, seed)
    width = min(training.edges_per_cluster, len(items))
    count = cluster_count(training.clusters, len(users), len(items), width)
    [chosen] = graph_grid(items, users, asked, [count], [width], [min(training.active_clusters, count)], seed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(grid, chosen, f"{dataset}: {len(users)} users, {len(items)} items", out / f"graph-{dataset}.png")
    results = {
        "dataset": dataset,
        "users": len(users),
        "items": len(items),
        "asked": len(asked.vectors),
        "chosen": chosen._asdict(),
        "grid": [quality._asdict() for quality in grid],
    }
    return results, [Goal(name="kept", value=chosen.kept, target=KEPT_TARGET, unit="", better="higher")]


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


def _trained(settings: Settings, source: Path, dataset: str, progress: Progress) -> tuple[Any, Any, Asked]:
    """Vectors of items and users of a release, and the users it is asked about."""
    from offline_training.data.spark import spark_session, stop_session
    from offline_training.data.training_sets import build_training_sets

    home, lake, training = settings.home, settings.home / "lake", settings.training
    import_data(source, home, settings.keyring(), Columns(), SystemClock(), section(progress, 0.0, 0.1))
    split = time_at_share(lake, TRAIN_SHARE) if dataset == ML_100K else (_END - HELD_OUT * _DAY) * 1000 + 1
    progress(0.1, "starting Spark")
    spark = spark_session(settings.spark, "matchloop-bench")
    try:
        build_training_sets(
            spark,
            lake,
            home / "sets",
            training=training,
            rewards=settings.rewards,
            until_ms=split,
            exclude_items=frozenset(),
            progress=section(progress, 0.15, 0.3),
        )
    finally:
        stop_session(spark)
    trained = train_models(
        read_training_data(home / "sets", training), home / "checkpoints", training, section(progress, 0.3, 0.95)
    )
    snapshot = Snapshot.load(home / "releases", write_release(home / "releases", trained, training, None, split))
    sequences = trained.sequences
    everybody, events = np.arange(len(sequences.users)), np.diff(sequences.start)
    users = encode_users(
        snapshot.towers, snapshot.vectors, sequences, everybody, events, snapshot.manifest.history_length
    )
    questions = held_out_questions(trained.catalogue, sequences, positives_from(lake, split, training.positive_value))
    seen = np.zeros((len(questions), snapshot.size), np.bool_)
    positives = np.zeros_like(seen)
    for row, question in enumerate(questions):
        seen[row, question.seen] = True
        positives[row, list(question.positives)] = True
    vectors = np.stack([asked_user(snapshot, question).vector for question in questions])
    return snapshot.vectors, users, Asked(vectors, seen, positives)


def _by_last(source: Path, directory: Path) -> Path:
    """ml-1m in the import format, with times that say the order of each user's ratings and nothing else: everybody's
    last is at _END, the one before a day earlier."""
    directory.mkdir()
    ratings = pq.read_table(source / "ratings.parquet").to_pandas()
    ratings = ratings[ratings["liked"].notna()]
    before = ratings.groupby("user_id")["sequence_index"].transform("max") - ratings["sequence_index"]
    rows = pd.DataFrame(
        {
            "user_id": ratings["user_id"].astype(str),
            "item_id": ratings["item_id"].astype(str),
            "type": "rating",
            "value": np.where(ratings["liked"].astype(bool), 5.0, 1.0),
            "timestamp": _END - before.astype("int64") * _DAY,
        }
    )
    rows.to_parquet(directory / "interactions.parquet")
    for name in ("items.parquet", "users.parquet"):
        (directory / name).write_bytes((source / name).read_bytes())
    return directory
