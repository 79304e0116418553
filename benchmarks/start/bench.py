"""`matchloop bench start`: what a retrain that goes on from the champion's weights costs, and what it keeps.

A log in order of time is retrained on again and again, each time with a slice more of it, once from nothing and once
from the weights that the retrain before had made of the slices before. Both are asked what users liked in the slice
that comes next, as a release serves them.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.datasets import Dataset, movielens_1m, movielens_100k
from benchmarks.retrieval.ours import training_data
from feature_store.arrays import Int64
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from offline_training.evaluation.holdout import evaluate_release, held_out_questions
from offline_training.progress import Progress, section
from offline_training.release.write import write_release
from offline_training.settings import TrainingSettings
from offline_training.train_models import State, train_models
from offline_training.training_data import TrainingData
from offline_training.warm_start import carried_towers
from online_serving.snapshot import Snapshot

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "ml-100k": movielens_100k,
    "ml-1m": lambda data: movielens_1m(data)[0],
}
FIRST, SLICE = 0.7, 0.1  # of the log: what the first training knows, and by how much each retrain knows more
SCRATCH, CHAMPION = "scratch", "champion"
RECALL, NDCG = "recall_at_50", "ndcg_at_10"
FASTER, KEPT = 2.0, 0.97  # what going on should give: so many times quicker, for so much of the quality


@dataclass(frozen=True)
class _Training:
    """A training, what it kept of its models, and how good its release is."""

    data: TrainingData
    kept: dict[str, State]
    figures: dict[str, float]


def run(
    data: Path | None, seed: int, progress: Progress, *, dataset: str, users: int | None, retrains: int
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. users: of the data set, evenly over all; None: all of them. retrains: one
    after the other. Raises InvalidInput without the data, and for a data set that there is not."""
    if data is None or dataset not in DATASETS:
        raise InvalidInput(f"Bench 'start' needs --data, the folder of data sets, and one of {', '.join(DATASETS)}.")
    settings = TrainingSettings(seed=seed, list_length=0)
    whole = DATASETS[dataset](data)
    chosen = np.unique(whole.log.user)
    chosen = chosen if users is None else chosen[np.linspace(0, len(chosen) - 1, users).astype(np.int64)]
    rows = np.flatnonzero(np.isin(whole.log.user, chosen))
    found: dict[str, list[dict[str, float]]] = {SCRATCH: [], CHAMPION: []}
    champion: _Training | None = None
    for step in range(retrains + 1):
        part = section(progress, step / (retrains + 1), (step + 1) / (retrains + 1))
        ends = [float(np.quantile(whole.log.time[rows], FIRST + SLICE * (step + more))) for more in (0, 1)]
        known = rows[whole.log.time[rows] <= ends[0]]
        asked = rows[(whole.log.time[rows] > ends[0]) & (whole.log.time[rows] <= ends[1])]
        scratch = _trained(whole, known, asked, settings, None, part)
        if champion is None:
            champion = scratch
            continue
        champion = _trained(whole, known, asked, settings, champion, part)
        found[SCRATCH].append(scratch.figures)
        found[CHAMPION].append(champion.figures)
    results = {
        "dataset": dataset,
        "users": len(chosen),
        "events": len(rows),
        "retrains": found,
        "mean": {
            name: {figure: float(np.mean([one[figure] for one in each])) for figure in each[0]}
            for name, each in found.items()
        },
    }
    return results, goals(results)


def goals(results: dict[str, Any]) -> list[Goal]:
    """A fraction of the time, and hardly less than all of the quality."""
    scratch, champion = (results["mean"][name] for name in (SCRATCH, CHAMPION))
    found = [
        Goal(
            name="faster",
            value=scratch["seconds"] / champion["seconds"],
            target=FASTER,
            unit="times",
            better="higher",
        )
    ]
    for metric in (RECALL, NDCG):
        kept = champion[f"two_stage_{metric}"] / scratch[f"two_stage_{metric}"]
        found.append(Goal(name=f"kept.{metric}", value=kept, target=KEPT, unit="of scratch", better="higher"))
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """For people: each retrain, and how good it is."""
    table = [["RETRAIN", "FROM", "SECONDS", "RECALL@50", "NDCG@10", "TOWERS ALONE: RECALL@50", "NDCG@10"]]
    for name, each in results["retrains"].items():
        for number, one in enumerate([*each, results["mean"][name]], 1):
            figures = [
                f"{one[f'{model}_{metric}']:.4f}" for model in ("two_stage", "retrieval") for metric in (RECALL, NDCG)
            ]
            table.append([str(number) if number <= len(each) else "mean", name, f"{one['seconds']:.0f}", *figures])
    return table


def _trained(
    dataset: Dataset,
    known: Int64,
    asked: Int64,
    settings: TrainingSettings,
    champion: _Training | None,
    report: Progress,
) -> _Training:
    data, kept, start = training_data(dataset, known), dict[str, State](), None
    if champion is not None:
        towers = carried_towers(champion.kept["towers"]["base"], champion.data.catalogue, data.catalogue, settings)
        start = {"towers": towers, "form": champion.kept["ranker"]["form"], "ranker": champion.kept["ranker"]["ranker"]}

    def keep(name: str, make: Callable[[], State]) -> State:
        kept[name] = make()
        return kept[name]

    with tempfile.TemporaryDirectory(prefix="matchloop-start-") as folder:
        began = time.process_time()
        trained = train_models(data, Path(folder) / "checkpoints", settings, report, keep, start)
        seconds = time.process_time() - began
        release = write_release(Path(folder), trained, settings, None, 0)
        snapshot = Snapshot.load(Path(folder), release)
        questions = held_out_questions(data.catalogue, data.sequences, _liked(dataset, asked))
        metrics = evaluate_release(snapshot, data.catalogue, data.sequences, questions, trained.metrics["recent_days"])
    wanted = (f"{model}_{metric}" for model in ("two_stage", "retrieval") for metric in (RECALL, NDCG))
    return _Training(data, kept, {"seconds": seconds, **{name: metrics[f"held_out_{name}"] for name in wanted}})


def _liked(dataset: Dataset, asked: Int64) -> dict[str, frozenset[str]]:
    """By user, as training_data calls them, the items that they liked."""
    liked: dict[str, set[str]] = {}
    for row in asked[dataset.positive[asked]].tolist():
        liked.setdefault(f"{dataset.log.user[row]:07d}", set()).add(dataset.items[dataset.log.item[row]].id)
    return {user: frozenset(items) for user, items in liked.items()}
