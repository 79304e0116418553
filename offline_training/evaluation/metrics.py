"""Offline metrics. Pure: NumPy in, numbers out."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NORMAL_95 = 1.96


def places(scores: NDArray[np.floating[Any]], positives: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places, from 1, of the positives (p,) in the ranking of all scores (I,), highest first.

    A tie ranks against the positive, and so does a score that is not a number. What must not be ranked scores -inf.
    """
    own = np.sort(scores[positives])[::-1]
    ahead = np.count_nonzero(~(scores < own[:, None]), axis=1) - np.count_nonzero(~(own < own[:, None]), axis=1)
    found: NDArray[np.int64] = ahead + np.arange(1, len(own) + 1)
    return found


def recall(places: NDArray[np.int64], size: int) -> float:
    """Recall@size: share of the positives within the first `size` places. NaN without positives, as below."""
    return float(np.mean(places <= size)) if len(places) else float("nan")


def hit_rate(places: NDArray[np.int64], size: int) -> float:
    """HitRate@size: 1 if any positive is within the first `size` places, else 0."""
    return float(np.any(places <= size)) if len(places) else float("nan")


def ndcg(places: NDArray[np.int64], size: int) -> float:
    """NDCG@size with gain 1 for a positive and discount 1/log2(place + 1) (Jaervelin & Kekaelaeinen 2002), divided by
    that of the best ranking, which has min(size, positives) hits in front."""
    if not len(places):
        return float("nan")
    best = np.arange(1, min(size, len(places)) + 1)
    return float(np.sum(1 / np.log2(places[places <= size] + 1)) / np.sum(1 / np.log2(best + 1)))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive outscores a negative, ties counting half (Mann-Whitney). NaN if one class is missing.

    scores: (n,). labels: (n,), positive above 0.5.
    """
    values = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels, dtype=np.float64) > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]  # mean rank of each group of ties, from 1
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def gauc(scores: ArrayLike, labels: ArrayLike, group: NDArray[np.int64]) -> float:
    """Mean AUC of the groups (a user's, a moment's rows) that hold both classes, weighted by their rows (Zhu et al.,
    KDD 2017, Eq. 8): how well each one's items are ordered, whoever likes more. NaN without such a group.

    scores, labels, group: (n,).
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64) > 0.5
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    mixed = [rows for rows in groups if 0 < np.count_nonzero(positive[rows]) < len(rows)]
    if not mixed:
        return float("nan")
    return float(
        np.average([auc(values[rows], positive[rows]) for rows in mixed], weights=[len(rows) for rows in mixed])
    )


def log_loss(probabilities: ArrayLike, rewards: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean of -r ln p - (1 - r) ln(1 - p), in nats. NaN without rows."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    r = np.asarray(rewards, dtype=np.float64)
    if not len(p):
        return float("nan")
    losses = -(r * np.log(p) + (1 - r) * np.log1p(-p))
    return float(np.average(losses, weights=None if weights is None else np.asarray(weights, dtype=np.float64)))


def calibration_curve(
    probabilities: ArrayLike, rewards: ArrayLike, bins: int, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Rows (weight, mean probability, mean reward), one for each of at most `bins` groups of equal numbers of rows, in
    order of probability. The rows of equal probability may fall into two groups."""
    p = np.asarray(probabilities, dtype=np.float64)
    r = np.asarray(rewards, dtype=np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group) and w[group].sum() > 0]
    rows = [(w[g].sum(), np.average(p[g], weights=w[g]), np.average(r[g], weights=w[g])) for g in groups]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def ece(probabilities: ArrayLike, rewards: ArrayLike, bins: int = 10, weights: ArrayLike | None = None) -> float:
    """Expected calibration error over groups of equal numbers of rows: mean of |mean probability - mean reward|
    weighted by the groups' weights (Naeini et al., AAAI 2015, with equal-mass bins). NaN without rows."""
    curve = calibration_curve(probabilities, rewards, bins, weights)
    if not len(curve):
        return float("nan")
    return float(np.average(np.abs(curve[:, 1] - curve[:, 2]), weights=curve[:, 0]))


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of one value for each user, and its normal interval of 95 %; endless with fewer than two users."""
    if len(values) < 2:
        return float(np.mean(values)) if len(values) else float("nan"), -np.inf, np.inf
    mean, half = float(values.mean()), float(_NORMAL_95 * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half
