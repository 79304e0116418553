"""Peers that read the order of what somebody did: closed forms and counts, strong where taste follows a thread."""

from typing import Self

import numpy as np
from scipy import linalg, sparse

from feature_store.arrays import Float64, Int64
from offline_training.evaluation.baselines import Interactions, weighted_past


class Markov:
    """First-order Markov chain: how often the item came right after the user's last one, smoothed towards popularity as
    if `smoothing` more visitors had been seen there."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing

    def fit(self, train: Interactions) -> Self:
        steps = _transitions(train, 1, 1.0)
        self._popularity = _popularity(train)
        self._weight = _inverse(np.asarray(steps.sum(axis=1)).ravel() + self._smoothing)
        self._steps = (sparse.diags(self._weight) @ steps).tocsr()
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        last = weighted_past(users, past, newest=1)
        scores: Float64 = (last @ self._steps).toarray()
        return scores + np.outer(_known(last @ self._weight, self._smoothing), self._popularity)


class SequentialKnn:
    """Item-kNN over directed pairs: how often j came within `window` steps after i, a distance of k counting decay^k;
    smoothed towards popularity as Markov is, divided by (users of j)^damping; summed over the newest items of the past,
    each counting `decay` times the one after it (after Ludewig & Jannach 2018, sequential rules)."""

    def __init__(self, smoothing: float, damping: float, window: int = 20, decay: float = 0.8) -> None:
        self._smoothing, self._damping, self._window, self._decay = smoothing, damping, window, decay

    def fit(self, train: Interactions) -> Self:
        follows = _transitions(train, self._window, self._decay)
        self._weight = _inverse(np.asarray(follows.sum(axis=1)).ravel() + self._smoothing)
        count = np.maximum(np.bincount(train.item, minlength=train.items), 1)
        damping = sparse.diags(count**-self._damping)
        self._follows = (sparse.diags(self._weight) @ follows @ damping).tocsr()
        self._popularity = _popularity(train) * count**-self._damping
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        recent = weighted_past(users, past, self._window, self._decay)
        scores: Float64 = (recent @ self._follows).toarray()
        return scores + np.outer(_known(recent @ self._weight, self._smoothing), self._popularity)


class NextItemRidge:
    """Linear regression of the next item on the decayed newest items before it, with ridge penalty: one closed form,
    W = (X'X + ridge I)^-1 X'Y."""

    def __init__(self, ridge: float, newest: int = 20, decay: float = 0.8) -> None:
        self._ridge, self._newest, self._decay = ridge, newest, decay

    def fit(self, train: Interactions) -> Self:
        rows = np.arange(len(train.user))
        first = np.searchsorted(train.user, train.user)
        entries = [(rows[rows - step >= first], step) for step in range(1, self._newest + 1)]
        row = np.concatenate([own for own, _ in entries])
        item = np.concatenate([train.item[own - step] for own, step in entries])
        value = np.concatenate([np.full(len(own), self._decay ** (step - 1)) for own, step in entries])
        shape = (len(rows), train.items)
        before = sparse.csr_matrix((value, (row, item)), shape=shape)
        after = sparse.csr_matrix((np.ones(len(rows)), (rows, train.item)), shape=shape)
        gram = (before.T @ before).toarray()
        gram[np.diag_indices_from(gram)] += self._ridge
        self._weights = linalg.solve(gram, (before.T @ after).toarray(), assume_a="pos", overwrite_a=True)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        scores: Float64 = weighted_past(users, past, self._newest, self._decay) @ self._weights
        return scores


def _transitions(train: Interactions, window: int, decay: float) -> sparse.csr_matrix:
    """(items, items) how often j came after i, up to `window` steps, weighted by decay^steps."""
    found = sparse.csr_matrix((train.items, train.items))
    for step in range(1, min(window, len(train.user) - 1) + 1):
        same = train.user[step:] == train.user[:-step]
        pair = (train.item[:-step][same], train.item[step:][same])
        found += sparse.csr_matrix((np.full(len(pair[0]), decay**step), pair), shape=found.shape)
    return found


def _popularity(train: Interactions) -> Float64:
    count = np.bincount(train.item, minlength=train.items)
    share: Float64 = count / max(1, count.sum())
    return share


def _inverse(values: Float64) -> Float64:
    """1 / value; 0 for what never went on, without smoothing."""
    inverse: Float64 = 1 / np.where(values > 0, values, np.inf)
    return inverse


def _known(weight: Float64, smoothing: float) -> Float64:
    """What popularity weighs; all for somebody without a past."""
    return np.where(weight > 0, smoothing * weight, 1.0)
