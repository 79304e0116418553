"""How much more often the evaluated policy would have done what was done: the weights that estimators put on it.

All take a log that check() lets pass and return (n, S), 0 where a slate has no such position.
"""

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.slate_log import SlateLog


def cumulative_weights(log: SlateLog) -> Float64:
    """w_k = prod_{j<=k} pi(a_j | x, a_<j) / pi_0(a_j | x, a_<j): the cascade. With one position, the weight of IPS."""
    steps = np.divide(log.target, log.logging, out=np.ones_like(log.target), where=log.present)
    return np.where(log.present, np.cumprod(steps, axis=1), 0.0)


def weights_before(log: SlateLog, weights: Float64) -> Float64:
    """w_k-1, 1 before the first position."""
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    return np.where(log.present, before, 0.0)


def item_position_weights(log: SlateLog) -> Float64:
    """Ratios of the marginal probabilities. Raises InvalidInput for a log without them."""
    if log.target_marginal is None or log.logging_marginal is None:
        raise InvalidInput("Item-position weights need the marginal probabilities of both policies, this log has none.")
    possible = log.present & (log.target_marginal > 0)
    return np.divide(log.target_marginal, log.logging_marginal, out=np.zeros_like(log.target), where=possible)


def pseudo_inverse_weights(log: SlateLog) -> Float64:
    """One weight for a whole slate, at each of its positions: 1 + sum_k (m_k - 1), m_k the item-position weights.

    Swaminathan et al., "Off-policy evaluation for slate recommendation" (NeurIPS 2017), in the form
    for policies that fill slots independently of each other; of policies that show no item twice it is an
    approximation. May be negative. Raises InvalidInput as item_position_weights does.
    """
    excess = np.where(log.present, item_position_weights(log) - 1, 0.0).sum(axis=1, keepdims=True)
    return np.where(log.present, 1 + excess, 0.0)


def by_category(chances: Float64, categories: Int64, actions: Int64) -> Float64:
    """The chance (n,) of the category of the shown action, whichever of its actions is drawn: of both policies, they
    make a log whose actions are categories.

    Importance weighting on it is MIPS: Saito and Joachims, "Off-Policy Evaluation for Large Action Spaces via
    Embeddings" (ICML 2022), unbiased if an action acts through its category alone. chances (n, A) of one policy;
    categories (A,), numbered from 0; actions (n,) shown.
    """
    mass = np.zeros((len(actions), int(categories.max(initial=0)) + 1))
    np.add.at(mass.T, categories, chances.T)
    return mass[np.arange(len(actions)), categories[actions]]
