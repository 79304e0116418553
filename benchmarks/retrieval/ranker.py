"""The ranker on what a release offers, against the order of retrieval and against logistic regression."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feature_store.arrays import Bool, Float32, Float64
from infra.benchmarks.bench import Goal
from offline_training.evaluation.metrics import auc, ece, gauc, interval, ndcg, places, recall
from offline_training.ranking.dataset import RankerRows

TOP, FRONT = 10, 50


class Offer(NamedTuple):
    """The n items that a release offers one user: the ranker's features (n, F), its probabilities, retrieval's scores,
    and which of them the user wanted; whether training knew anything that the user did."""

    features: Float32
    probability: Float64
    similarity: Float32
    wanted: Bool
    returning: bool


def compare(rows: RankerRows, offers: Iterable[Offer]) -> dict[str, Any]:
    """How well the ranker orders what is offered to each user. rows: what it was fitted on, and logistic regression is.

    AUC is over all items offered to anybody, GAUC by user; NDCG@10 is over users who wanted any. `ahead_of_retrieval`:
    what the ranker's order is ahead of retrieval's for the same users, each counting once, by part of the users, with
    intervals: NDCG@10, recall@50 of what was offered and wanted, and AUC.
    """
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(rows.features, rows.reward > 0.5, logisticregression__sample_weight=rows.weight)
    features, probability, similarity, wanted, returning = zip(*offers, strict=True)
    scores = {
        "ranker": probability,
        "retrieval": similarity,
        "logistic_regression": [regression.decision_function(own) for own in features],
    }
    everything = np.concatenate(wanted)
    user = np.repeat(np.arange(len(wanted)), [len(labels) for labels in wanted])
    found: dict[str, Any] = {
        "users": len(wanted),
        "offered": len(everything),
        "wanted": int(everything.sum()),
        "ece": ece(np.concatenate(scores["ranker"]), everything),
        "mean_probability": float(np.concatenate(scores["ranker"]).mean()),
    }
    for name, values in scores.items():
        found_at = [places(score, np.flatnonzero(labels)) for score, labels in zip(values, wanted, strict=True)]
        top = np.array([ndcg(own_places, TOP) for own_places in found_at])
        found[name] = {
            "auc": auc(np.concatenate(values), everything),
            "gauc": gauc(np.concatenate(values), everything, user),
            f"ndcg@{TOP}": _spread(top),
        }
    ours, theirs = _by_user(scores["ranker"], wanted), _by_user(scores["retrieval"], wanted)
    known = np.array(returning)
    found["ahead_of_retrieval"] = {
        part: {metric: _spread((ours[metric] - theirs[metric])[chosen]) for metric in ours}
        for part, chosen in (("all", known | True), ("known_users", known), ("new_users", ~known))
        if chosen.any()
    }
    return found


def _by_user(scores: Sequence[Float64 | Float32], wanted: Sequence[Bool]) -> dict[str, Float64]:
    """Each metric of each user, (users,); NaN where it says nothing."""
    found = [
        (ndcg(own, TOP), recall(own, FRONT), auc(score, labels))
        for score, labels in zip(scores, wanted, strict=True)
        for own in [places(score, np.flatnonzero(labels))]
    ]
    return dict(zip((f"ndcg@{TOP}", f"recall@{FRONT}", "auc"), np.array(found).T, strict=True))


def _spread(values: Float64) -> dict[str, float]:
    """Mean and interval over those who have a value."""
    return dict(zip(("mean", "low", "high"), interval(values[~np.isnan(values)]), strict=True))


def goals(found: list[dict[str, Any]]) -> list[Goal]:
    """What should hold of the means over seeds of what compare() found."""
    others = ("retrieval", "logistic_regression")

    def ahead(value: Callable[[dict[str, Any]], float]) -> float:
        return min(float(np.mean([value(one["ranker"]) - value(one[other]) for one in found])) for other in others)

    error = float(np.mean([one["ece"] for one in found]))
    return [
        Goal(name="ranker.auc.ahead", value=ahead(lambda one: one["auc"]), target=0.0, unit="", better="higher"),
        Goal(name="ranker.gauc.ahead", value=ahead(lambda one: one["gauc"]), target=0.0, unit="", better="higher"),
        Goal(
            name=f"ranker.ndcg@{TOP}.ahead",
            value=ahead(lambda one: one[f"ndcg@{TOP}"]["mean"]),
            target=0.0,
            unit="",
            better="higher",
        ),
        Goal(name="ranker.ece", value=error, target=0.02, unit="", better="lower"),
    ]
