"""Coat: what people chose to rate, corrected by the chance that they did, against ratings of coats drawn at random.

Schnabel et al., "Recommendations as Treatments: Debiasing Learning and Evaluation" (ICML 2016): the same inverse
propensities that value a policy also evaluate and train a model of ratings.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from feature_store.arrays import Float64, Int64
from offline_training.evaluation.metrics import ndcg, places
from offline_training.off_policy.estimators import ESTIMATORS
from offline_training.off_policy.slate_log import single_decisions

_FACTORS, _ROUNDS, _RIDGE = 6, 15, 8.0
_TOP, _LIKED = 5, 4.0  # a rating from which on a coat counts as liked


class _Ratings(NamedTuple):
    user: Int64
    item: Int64
    rating: Float64


def debiased(data: Path, seed: int) -> dict[str, Any]:
    """The mean rating of a coat drawn at random, as the self-selected ratings say it plainly and weighted, and as the
    random test says it; and the same model of ratings trained plainly and weighted, by its error and NDCG there."""
    table = pq.read_table(data / "coat" / "train_self_selected.parquet")
    train, test = _ratings(table), _ratings(pq.read_table(data / "coat" / "test_uniform_random.parquet"))
    propensity = table["estimated_propensity"].to_numpy().astype(np.float64)
    users, items = int(train.user.max()) + 1, int(max(train.item.max(), test.item.max())) + 1
    # Each observed rating is one that had its chance; under the uniform policy all of them would have the same.
    log = single_decisions(train.user, train.rating, np.full(len(propensity), propensity.min()), propensity)
    value = ESTIMATORS["RIPS, self-normalised"](log)[0].value
    models = {
        "plain": _trained(train, np.ones(len(propensity)), users, items, seed),
        "weighted": _trained(train, (1 / propensity) / np.mean(1 / propensity), users, items, seed),
    }
    return {
        "mean_rating": {
            "plain": float(train.rating.mean()),
            "weighted": value,
            "random test": float(test.rating.mean()),
        },
        "models": {name: _judged(model, test) for name, model in models.items()},
    }


def _ratings(table: Any) -> _Ratings:
    columns = (table[name].to_numpy() for name in ("user_id", "item_id"))
    user, item = (column.astype(np.int64) for column in columns)
    return _Ratings(user, item, table["rating"].to_numpy().astype(np.float64))


def _trained(ratings: _Ratings, weights: Float64, users: int, items: int, seed: int) -> Float64:
    """(users, items) predictions of a matrix factorisation by weighted alternating least squares, a constant factor on
    either side for the levels."""
    rng = np.random.default_rng(seed)
    level = float(np.average(ratings.rating, weights=weights))
    y = ratings.rating - level
    left, right = (0.1 * rng.normal(size=(n, _FACTORS)) for n in (users, items))
    left[:, 0], right[:, 1] = 1.0, 1.0
    for _ in range(_ROUNDS):
        left = _solved(ratings.user, right[ratings.item], y, weights, users, fixed=0)
        right = _solved(ratings.item, left[ratings.user], y, weights, items, fixed=1)
    return level + left @ right.T


def _solved(row: Int64, x: Float64, y: Float64, weights: Float64, count: int, fixed: int) -> Float64:
    """(count, factors) ridge regressions of y on x by row, with the factor `fixed` held at 1."""
    free = [k for k in range(_FACTORS) if k != fixed]
    rest, z = y - x[:, fixed], x[:, free]
    gram, target = np.zeros((count, len(free), len(free))), np.zeros((count, len(free)))
    np.add.at(gram, row, weights[:, None, None] * z[:, :, None] * z[:, None, :])
    np.add.at(target, row, (weights * rest)[:, None] * z)
    found = np.ones((count, _FACTORS))
    found[:, free] = np.linalg.solve(gram + _RIDGE * np.eye(len(free)), target[:, :, None])[:, :, 0]
    return found


def _judged(predicted: Float64, test: _Ratings) -> dict[str, float]:
    """Mean squared error, and the mean over users of NDCG among the coats that were drawn for them."""
    scores = predicted[test.user, test.item]
    found = []
    for user in np.unique(test.user).tolist():
        rows = test.user == user
        liked = np.flatnonzero(test.rating[rows] >= _LIKED)
        if len(liked):
            found.append(ndcg(places(scores[rows], liked), _TOP))
    return {"mse": float(np.mean((scores - test.rating) ** 2)), f"ndcg@{_TOP}": float(np.mean(found))}
