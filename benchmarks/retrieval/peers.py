"""Peers that read what somebody had to do with, in closed form."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import svds

from feature_store.arrays import Float64, Int64
from offline_training.evaluation.baselines import Interactions, weighted_past


class Ease:
    """Linear autoencoder with zero diagonal in closed form (Steck, WWW 2019, Eq. 8), on the newest of the past."""

    def __init__(self, ridge: float, newest: int | None = None, decay: float = 1.0) -> None:
        self._ridge, self._newest, self._decay = ridge, newest, decay

    def fit(self, train: Interactions) -> Self:
        matrix = train.matrix()
        gram = (matrix.T @ matrix).toarray()
        gram[np.diag_indices_from(gram)] += self._ridge
        precision = linalg.inv(gram, overwrite_a=True)
        self._weights = -precision / np.diag(precision)
        np.fill_diagonal(self._weights, 0.0)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        scores: Float64 = weighted_past(users, past, self._newest, self._decay) @ self._weights
        return scores


class LowPass:
    """The ideal low-pass of GF-CF (Shen et al., CIKM 2021, Eq. 9): two linear towers in closed form. With R the
    user-item matrix divided by the roots of both degrees, item j is v_j, row j of the `factors` leading right singular
    vectors of R; a user is the sum of v_i / sqrt(n_i) over the past, and a score their inner product times sqrt(n_j).
    """

    def __init__(self, factors: int) -> None:
        self._factors = factors

    def fit(self, train: Interactions) -> Self:
        normed, self._by_item = _normed(train)
        factors = min(self._factors, min(normed.shape) - 1)
        self._directions = svds(normed, k=factors, rng=np.random.default_rng(0))[2].T
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        liked = _met(users, past) @ sparse.diags(1 / self._by_item)
        scores: Float64 = (liked @ self._directions) @ self._directions.T * self._by_item
        return scores


class GfCf:
    """Graph filter (Shen et al., CIKM 2021, Eq. 9): the normalised item-item matrix plus `alpha` times an ideal
    low-pass of its `factors` largest directions."""

    def __init__(self, alpha: float, factors: int) -> None:
        self._alpha, self._low_pass = alpha, LowPass(factors)

    def fit(self, train: Interactions) -> Self:
        normed, _ = _normed(train)
        self._similarity = (normed.T @ normed).tocsr()
        self._low_pass.fit(train)
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        direct = (_met(users, past) @ self._similarity).toarray()
        scores: Float64 = direct + self._alpha * self._low_pass.score(users, past)
        return scores


def _met(users: Int64, past: Interactions) -> sparse.csr_matrix:
    """(n, items), 1 for what the users had to do with."""
    met = weighted_past(users, past).astype(np.float32)
    met.data[:] = 1.0
    return met


def _normed(train: Interactions) -> tuple[sparse.csr_matrix, Float64]:
    """The user-item matrix divided by the roots of both degrees, and the roots (items,) of the items'."""
    matrix = train.matrix().astype(np.float32)
    by_user = np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1))
    by_item = np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1))
    return (sparse.diags(1 / by_user) @ matrix @ sparse.diags(1 / by_item)).tocsr().astype(np.float32), by_item


class ContentKnn:
    """Sum over the newest of the past of the cosine between items' content tokens, weighted by inverse document
    frequency. It ranks items that nobody has met."""

    def __init__(self, tokens: Sequence[Sequence[str]], newest: int | None = None, decay: float = 1.0) -> None:
        self._newest, self._decay = newest, decay
        names, column = np.unique([token for own in tokens for token in own], return_inverse=True)
        row = np.repeat(np.arange(len(tokens)), [len(own) for own in tokens])
        found = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(tokens), len(names)))
        weight = np.log((1 + len(tokens)) / (1 + np.asarray((found > 0).sum(axis=0)).ravel()))
        weighted = found @ sparse.diags(weight)
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        self._unit = (sparse.diags(1 / np.maximum(length, 1e-12)) @ weighted).tocsr()

    def fit(self, train: Interactions) -> Self:  # noqa: ARG002 - content is all it knows
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        return self.similar(weighted_past(users, past, self._newest, self._decay))

    def similar(self, weights: sparse.csr_matrix | Float64) -> Float64:
        """Scores (n, items) by the weights (n, items) of what somebody had to do with."""
        scores: Float64 = (sparse.csr_matrix(weights) @ self._unit @ self._unit.T).toarray()
        return scores
