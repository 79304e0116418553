"""Simple recommenders to be better than. One interface: fit on positive interactions, score every item for
histories."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class Positives:
    """Positive interactions: user, item, time (ms) run parallel, (n,); users and items are numbered from 0."""

    user: Int64
    item: Int64
    time: Int64
    users: int
    items: int


class Baseline(Protocol):
    """A recommender that needs no training to speak of."""

    def fit(self, positives: Positives) -> Self:
        """Learns from all positives."""

    def score(self, histories: Sequence[Int64]) -> Float64:
        """Scores (len(histories), items), higher is better, for users who liked these items (numbers, in any order)."""


class Popularity:
    """Users who liked the item."""

    def fit(self, positives: Positives) -> Self:
        self._scores = _users_per_item(positives.user, positives.item, positives.items)
        return self

    def score(self, histories: Sequence[Int64]) -> Float64:
        return np.tile(self._scores, (len(histories), 1))


class RecentPopularity:
    """Users who liked the item in the last `days` of the data; a strong baseline where taste drifts."""

    def __init__(self, days: float) -> None:
        self._days = days

    def fit(self, positives: Positives) -> Self:
        newest = positives.time.max() if len(positives.time) else 0
        recent = positives.time >= newest - self._days * _MS_PER_DAY
        self._scores = _users_per_item(positives.user[recent], positives.item[recent], positives.items)
        return self

    def score(self, histories: Sequence[Int64]) -> Float64:
        return np.tile(self._scores, (len(histories), 1))


class ItemKnn:
    """Sum over the history of the cosine between items' columns of the user-item matrix (Sarwar et al., WWW 2001), over
    each item's `neighbours` most similar items."""

    def __init__(self, neighbours: int = 100) -> None:
        self._neighbours = neighbours

    def fit(self, positives: Positives) -> Self:
        shape = (positives.users, positives.items)
        liked = sparse.csr_matrix((np.ones(len(positives.user)), (positives.user, positives.item)), shape=shape)
        liked.data[:] = 1.0  # a repeated interaction counts once
        norm = np.sqrt(np.asarray(liked.sum(axis=0)).ravel())
        unit = liked @ sparse.diags(1 / np.maximum(norm, 1.0))
        similarity = unit.T @ unit
        others = similarity - sparse.diags(similarity.diagonal())
        self._similarity = _largest_per_row(others.tocsr(), self._neighbours)
        self._items = positives.items
        return self

    def score(self, histories: Sequence[Int64]) -> Float64:
        rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        items = np.concatenate([np.zeros(0, np.int64), *histories])
        shape = (len(histories), self._items)
        context = sparse.csr_matrix((np.ones(len(rows)), (rows, items)), shape=shape)
        scores: Float64 = (context @ self._similarity).toarray()
        return scores


def _users_per_item(user: Int64, item: Int64, items: int) -> Float64:
    pairs = np.unique(np.stack([user, item]), axis=1)
    return np.bincount(pairs[1], minlength=items).astype(np.float64)


def _largest_per_row(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    keep = np.ones(matrix.nnz, dtype=np.bool_)
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        surplus = part.stop - part.start - count
        if surplus > 0:
            keep[part.start + np.argpartition(matrix.data[part], surplus)[:surplus]] = False
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    return sparse.csr_matrix((matrix.data[keep], (rows, matrix.indices[keep])), shape=matrix.shape)
