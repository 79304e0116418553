"""A reward model for logs that bring none: ridge regression, cross-fitted, so that no prediction has seen its reward.

Cross-fitting keeps DR unbiased with a model of the same log: Chernozhukov et al., "Double/debiased machine learning"
(The Econometrics Journal 21, 2018), definition 3.1.
"""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput

FOLDS = 5
_RIDGE = 10.0  # as many observations as pull a coefficient to 0


class Predictions(NamedTuple):
    """q by action. The reward of action a in row i is base_i + action[fold_i, a], plus interaction[fold_i, a] x_i."""

    folds: Int64  # (n,)
    base: Float64  # (n,)
    action: Float64  # (FOLDS, A)
    features: Float64  # (n, d)
    interaction: Float64  # (FOLDS, A, d)

    def of(self, actions: Int64) -> Float64:
        """(n,) the prediction for one action of each row."""
        by_feature = (self.interaction[self.folds, actions] * self.features).sum(axis=1)
        found: Float64 = self.base + self.action[self.folds, actions] + by_feature
        return found

    def under(self, policy: Float64) -> Float64:
        """(n,) E_pi q for the chances (n, A) of a policy."""
        found: Float64 = self.base * policy.sum(axis=1)
        for fold in range(len(self.action)):
            rows = self.folds == fold
            every = self.action[fold] + self.features[rows] @ self.interaction[fold].T
            found[rows] += (policy[rows] * every).sum(axis=1)
        return found

    def under_always(self, policy: Float64) -> Float64:
        """(n,) E_pi q for the chances (A,) of a policy that looks at nothing."""
        by_feature = (self.interaction.transpose(0, 2, 1) @ policy)[self.folds]
        found: Float64 = self.base * policy.sum() + (self.action @ policy)[self.folds]
        found += (by_feature * self.features).sum(axis=1)
        return found


def cross_fitted(
    users: Int64, features: Float64, actions: Int64, rewards: Float64, count: int, folds: int = FOLDS
) -> Predictions:
    """Predicts the rewards (n,) of actions (n,) out of `count` from features (n, d), each row by what the rows of other
    users say. Fitted in turn: features alone, then each action's level, then each action's own answer to the features.

    Raises InvalidInput with fewer users than folds.
    """
    _, codes = np.unique(users, return_inverse=True)
    if codes.max(initial=-1) + 1 < folds:
        raise InvalidInput(f"Cross-fitting needs at least {folds} users, the log has {codes.max(initial=-1) + 1}.")
    shuffled = np.random.default_rng(0).permutation(codes.max() + 1)
    fold_of = shuffled[codes] % folds
    d = features.shape[1]
    base = np.empty(len(rewards))
    action, interaction = np.empty((folds, count)), np.zeros((folds, count, d))
    for fold in range(folds):
        train = fold_of != fold
        x, a, y = features[train], actions[train], rewards[train]
        center, level = x.mean(axis=0), float(y.mean())
        slopes = np.linalg.solve((x - center).T @ (x - center) + _RIDGE * np.eye(d), (x - center).T @ (y - level))
        base[~train] = level + (features[~train] - center) @ slopes
        residual = y - level - (x - center) @ slopes
        times = np.bincount(a, minlength=count)
        action[fold] = np.bincount(a, weights=residual, minlength=count) / (times + _RIDGE)
        residual = residual - action[fold][a]
        order = np.argsort(a, kind="stable")
        ends = np.cumsum(times)
        for one in np.flatnonzero(times).tolist():
            rows = order[ends[one] - times[one] : ends[one]]
            gram = x[rows].T @ x[rows] + _RIDGE * np.eye(d)
            interaction[fold, one] = np.linalg.solve(gram, x[rows].T @ residual[rows])
    return Predictions(fold_of, base, action, features, interaction)
