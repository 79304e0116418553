"""The library that people would use instead: `implicit`."""

from contextlib import AbstractContextManager
from typing import Self

import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.baselines import Interactions, weighted_past

try:
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise InvalidInput(
        f"The bench compares with {error.name}, which is not installed: pip install 'matchloop[bench]'"
    ) from error


class Als:
    """Implicit ALS (Hu et al., ICDM 2008); users are folded in from the newest of their past."""

    def __init__(
        self,
        factors: int,
        alpha: float,
        ridge: float = 0.01,
        newest: int | None = None,
        decay: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._newest, self._decay = newest, decay
        with _one_thread():
            self._model = AlternatingLeastSquares(
                factors=factors, alpha=alpha, regularization=ridge, random_state=seed, num_threads=1
            )

    def fit(self, train: Interactions) -> Self:
        with _one_thread():
            self._model.fit(train.matrix().astype(np.float32), show_progress=False)
        self._met = np.bincount(train.item, minlength=train.items) > 0
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:
        recent = weighted_past(users, past, self._newest, self._decay).astype(np.float32)
        with _one_thread():
            vectors = self._model.recalculate_user(np.arange(len(users)), recent)
        return _unmet_last(vectors @ self._model.item_factors.T, self._met)


class Bpr:
    """Matrix factorisation by Bayesian personalised ranking (Rendle et al., UAI 2009); who is new is the mean user."""

    def __init__(self, factors: int, rate: float, iterations: int = 100, seed: int = 0) -> None:
        self._model = BayesianPersonalizedRanking(
            factors=factors, learning_rate=rate, iterations=iterations, random_state=seed, num_threads=1
        )

    def fit(self, train: Interactions) -> Self:
        self._model.fit(train.matrix().astype(np.float32), show_progress=False)
        known = np.bincount(train.user, minlength=train.users) > 0
        self._vectors = self._model.user_factors.copy()
        self._vectors[~known] = self._vectors[known].mean(axis=0)
        self._met = np.bincount(train.item, minlength=train.items) > 0
        return self

    def score(self, users: Int64, past: Interactions) -> Float64:  # noqa: ARG002 - it knows users by their number
        vectors = np.vstack([self._vectors, self._vectors.mean(axis=0)])[np.minimum(users, len(self._vectors))]
        return _unmet_last(vectors @ self._model.item_factors.T, self._met)


def _unmet_last(scores: Float64, met: Bool) -> Float64:
    """Items that training has not met come last: the library gives them the numbers that it began with."""
    scores[:, ~met] = scores.min() - 1
    return scores


def _one_thread() -> AbstractContextManager[object]:
    """What the library asks for: its own loops are parallel, and those of BLAS would get in their way."""
    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits
