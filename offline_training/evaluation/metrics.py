"""Offline metrics. Pure: NumPy in, numbers out."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def recall(ranked: Sequence[int], positives: Collection[int], size: int) -> float:
    """Recall@size: share of the positives among the first `size` of the ranking. NaN without positives."""
    if not positives:
        return float("nan")
    wanted = set(positives)
    return sum(item in wanted for item in ranked[:size]) / len(wanted)


def hit_rate(ranked: Sequence[int], positives: Collection[int], size: int) -> float:
    """HitRate@size: 1 if any positive is among the first `size` of the ranking, else 0. NaN without positives."""
    if not positives:
        return float("nan")
    wanted = set(positives)
    return float(any(item in wanted for item in ranked[:size]))


def ndcg(ranked: Sequence[int], positives: Collection[int], size: int) -> float:
    """NDCG@size with gain 1 for a positive and discount 1/log2(place + 1) (Jaervelin & Kekaelaeinen 2002), divided by
    that of the best ranking, which has min(size, positives) hits in front. NaN without positives."""
    if not positives:
        return float("nan")
    wanted = set(positives)
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked[:size]) if item in wanted)
    best = sum(1 / np.log2(place + 2) for place in range(min(size, len(wanted))))
    return float(gain / best)


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
