"""Simple recommenders to be better than. One interface: fit on interactions, score every item for users with a past."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from scipy import sparse

from feature_store.arrays import Float64, Int64
from feature_store.definitions import DAY_MS


@dataclass(frozen=True)
class Interactions:
    """What users did that counts: user, item, time (ms) run parallel, (n,), each user's rows together, oldest first.
    Users and items are numbered from 0."""

    user: Int64
    item: Int64
    time: Int64
    users: int
    items: int

    def take(self, rows: Int64) -> "Interactions":
        """The chosen rows, which must keep the order."""
        return Interactions(self.user[rows], self.item[rows], self.time[rows], self.users, self.items)

    def matrix(self) -> sparse.csr_matrix:
        """(users, items), 1 where there is an interaction, however many there are."""
        shape = (self.users, self.items)
        found = sparse.csr_matrix((np.ones(len(self.user)), (self.user, self.item)), shape=shape)
        found.data[:] = 1.0
        return found


class Baseline(Protocol):
    """A model that ranks items."""

    def fit(self, train: Interactions) -> Self:
        """Learns from all interactions, none at all included, and returns itself."""

    def score(self, users: Int64, past: Interactions) -> Float64:
        """Scores (n, items), higher is better, in a unit of the model's own. users: (n,) ascending, by their numbers in
        training or beyond them; past: what they did before, which may be more than what was trained on, or nothing.
        Raises AttributeError before fit."""


class MostPopular:
    """Users who had to do with the item."""

    def fit(self, train: Interactions) -> Self:
        """Counts each user once an item."""
        self._scores = _users_per_item(train.user, train.item, train.items)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:  # noqa: ARG002 - the interface
        """(n, items) numbers of users, the same for each of users (n,); past is not read. Raises AttributeError before
        fit."""
        return np.tile(self._scores, (len(users), 1))


class MostPopularLately:
    """Users who had to do with the item in the last `days` of the data; a strong baseline where taste drifts."""

    def __init__(self, days: float) -> None:
        self._days = days

    def fit(self, train: Interactions) -> Self:
        """Counts each user once an item, from `days` before the newest interaction on."""
        newest = train.time.max() if len(train.time) else 0
        recent = train.time >= newest - self._days * DAY_MS
        self._scores = _users_per_item(train.user[recent], train.item[recent], train.items)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:  # noqa: ARG002 - the interface
        """(n, items) numbers of recent users, the same for each of users (n,); past is not read. Raises AttributeError
        before fit."""
        return np.tile(self._scores, (len(users), 1))


class ItemKnn:
    """Sum over the newest of the past of the cosine between items' columns of the user-item matrix (Sarwar et al.,
    WWW 2001), over each item's `neighbours` most similar items."""

    def __init__(self, neighbours: int = 100, newest: int | None = None, decay: float = 1.0) -> None:
        self._neighbours, self._newest, self._decay = neighbours, newest, decay

    def fit(self, train: Interactions) -> Self:
        """Keeps the cosines (items, items) of each item's nearest neighbours, itself left out. Raises ValueError for a
        user or an item numbered beyond train.users or train.items."""
        matrix = train.matrix()
        norm = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
        unit = matrix @ sparse.diags(1 / np.maximum(norm, 1.0))
        similarity = unit.T @ unit
        others = similarity - sparse.diags(similarity.diagonal())
        self._similarity = largest_per_row(others.tocsr(), self._neighbours)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        """(n, items) sums of cosines for users (n,), ascending; 0 for who has no past. Raises AttributeError before
        fit, and ValueError for a past of a user beyond the last of users or of an item that training did not number."""
        scores: Float64 = (weighted_past(users, past, self._newest, self._decay) @ self._similarity).toarray()
        return scores


def weighted_past(users: Int64, past: Interactions, newest: int | None = None, decay: float = 1.0) -> sparse.csr_matrix:
    """(n, items): each user's newest interactions, at most `newest` of them (None: all), the last with weight 1, the
    one before it with weight `decay`, and so on."""
    end = np.searchsorted(past.user, past.user, side="right")
    age = end - 1 - np.arange(len(past.user))
    read = age < (len(age) if newest is None else newest)
    row = np.searchsorted(users, past.user[read])
    shape = (len(users), past.items)
    return sparse.csr_matrix((decay ** age[read].astype(np.float64), (row, past.item[read])), shape=shape)


def largest_per_row(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """The `count` largest entries of each row."""
    keep = np.ones(matrix.nnz, dtype=np.bool_)
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        surplus = part.stop - part.start - count
        if surplus > 0:
            keep[part.start + np.argpartition(matrix.data[part], surplus)[:surplus]] = False
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[keep]
    return sparse.csr_matrix((matrix.data[keep], (rows, matrix.indices[keep])), shape=matrix.shape)


def _users_per_item(user: Int64, item: Int64, items: int) -> Float64:
    pairs = np.unique(np.stack([user, item]), axis=1)
    return np.bincount(pairs[1], minlength=items).astype(np.float64)
