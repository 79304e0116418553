"""From figures of users to what is reported: means with intervals, models held against each other, goals."""

from typing import Any

import numpy as np

from benchmarks.retrieval.contenders import CONTENT_KNN
from benchmarks.retrieval.item_lists import LISTS, UNION
from benchmarks.retrieval.measure import TestResults, label
from benchmarks.retrieval.ours import MODEL, SERVED, TWO_STAGE
from benchmarks.retrieval.protocols import HIDDEN_ITEMS, NEVER_SEEN, TEST, Protocol, Task
from feature_store.arrays import Float64
from infra.benchmarks.bench import Goal
from offline_training.evaluation.metrics import interval

OURS = (MODEL, SERVED, TWO_STAGE, LISTS, UNION)
KEPT = 0.97  # of the model's NDCG, by the release that serves
_STATE_OF_THE_ART = {
    "ml-1m": {"hit_rate@10": 0.3294, "ndcg@10": 0.1893},  # HSTU-large
    "gowalla-lightgcn": {"recall@20": 0.1869, "ndcg@20": 0.1554},  # the better of GF-CF and LightGCN
}

Figures = dict[tuple[str, str], TestResults]  # by model and test


def report(protocol: Protocol, figures: Figures) -> dict[str, Any]:
    """Test -> users and model -> part of the users -> metric -> mean and interval over users, each user's value being
    the mean over seeds; and for each of ours, what it is ahead of every other model, on the same users."""
    return {
        test: {
            "users": {"all": len(task.users)} | {name: int(chosen.sum()) for name, chosen in task.slices.items()},
            "models": {model: _parts(task, one) for (model, asked), one in figures.items() if asked == test},
            "ahead": {
                model: {
                    other: {
                        metric: _spread(_mean(figures[model, test])[metric] - values)
                        for metric, values in _mean(two).items()
                    }
                    for (other, asked), two in figures.items()
                    if asked == test and other != model
                }
                for model in OURS
                if (model, test) in figures
            },
        }
        for test, task in protocol.tests.items()
    }


def goals(name: str, protocol: Protocol, results: dict[str, Any]) -> list[Goal]:
    """What should hold on a data set, as far as the models took part."""
    found = []

    def add(goal: str, value: float, target: float, unit: str = "") -> None:
        found.append(Goal(name=f"{name}.{goal}", value=value, target=target, unit=unit, better="higher"))

    models = results[TEST]["models"]
    ours = [model for model in OURS if model in models]
    if not ours:
        return []
    best = max(ours, key=lambda model: models[model]["all"][label(protocol.tuned_for)]["mean"])
    for metric, target in _STATE_OF_THE_ART.get(name, {}).items():
        add(metric, models[best]["all"][metric]["mean"], target)
    peers = [model for model in models if model not in OURS]
    for metric in (label(metric) for metric in protocol.metrics[:2]) if peers else ():
        ahead = results[TEST]["ahead"][best]
        add(f"{metric}.ahead_of_peers", min(ahead[other][metric]["low"] for other in peers), 0.0, "lower bound")
    if MODEL in models and SERVED in models:
        metric = label(protocol.tuned_for)
        kept = models[SERVED]["all"][metric]["mean"] / models[MODEL]["all"][metric]["mean"]
        add(f"{metric}.kept_by_the_release", kept, KEPT)
    for test in (NEVER_SEEN, HIDDEN_ITEMS):
        if CONTENT_KNN in results.get(test, {"models": {}})["models"]:
            ahead = results[test]["ahead"][best]
            metric = label(protocol.metrics[0])
            add(f"{test}.{metric}.ahead_of_peers", min(ahead[other][metric]["mean"] for other in peers), 0.0)
    return found


def table(results: dict[str, Any]) -> list[list[str]]:
    """A table for people: every model by its figures on all users of the test, best last."""
    models = {model: parts["all"] for model, parts in results[TEST]["models"].items()}
    metrics = list(next(iter(models.values())))
    body = sorted(models.items(), key=lambda one: one[1][metrics[0]]["mean"])
    return [
        ["MODEL", *metrics],
        *(
            [model, *(f"{own[metric]['mean']:.4f} ± {_half(own[metric]):.4f}" for metric in metrics)]
            for model, own in body
        ),
    ]


def _parts(task: Task, one: TestResults) -> dict[str, Any]:
    found = {}
    for part, chosen in {"all": np.ones(len(task.users), np.bool_), **task.slices}.items():
        found[part] = {
            metric: _spread(values[chosen]) | {"seeds": [float(seed[metric][chosen].mean()) for seed in one.values]}
            for metric, values in _mean(one).items()
            if chosen.any()
        }
    return found


def _mean(one: TestResults) -> dict[str, Float64]:
    return {metric: np.mean([values[metric] for values in one.values], axis=0) for metric in one.values[0]}


def _spread(values: Float64) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), interval(values), strict=True))


def _half(one: dict[str, float]) -> float:
    return (one["high"] - one["low"]) / 2
