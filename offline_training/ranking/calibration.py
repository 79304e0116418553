"""Platt scaling: makes a model's log-odds mean what they say."""

import numpy as np

from feature_store.arrays import Float64

_ITERATIONS = 50
_RIDGE = 1.0


def platt(logits: Float64, rewards: Float64, weights: Float64) -> tuple[float, float]:
    """Slope and intercept such that sigmoid(slope * logit + intercept) fits the rewards (Platt 1999, Eq. 1).

    logits, rewards in [0, 1], weights: (n,), weights averaging about 1. Newton's method on the weighted log-likelihood;
    a ridge that counts as one row pulls towards the identity (1, 0), so that few rows, or rows all alike, change
    little. A fit that would reverse the order (slope <= 0) keeps slope 1 and fits the intercept alone.
    """
    slope, intercept = _newton(logits, rewards, weights, free_slope=True)
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope <= 0.05:
        slope, intercept = _newton(logits, rewards, weights, free_slope=False)
    return float(slope), float(intercept)


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    result: Float64 = 0.5 * (1 + np.tanh(0.5 * x))
    return result


def _newton(logits: Float64, rewards: Float64, weights: Float64, free_slope: bool) -> tuple[float, float]:
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    identity = np.array([1.0, 0.0])
    free = np.array([free_slope, True])
    parameters = identity.copy()

    def loss(candidate: Float64) -> float:
        x = design @ candidate
        ridge = _RIDGE / 2 * float(((candidate - identity) ** 2).sum())
        return float((weights * (np.logaddexp(0, x) - rewards * x)).sum()) + ridge

    for _ in range(_ITERATIONS):
        probability = sigmoid(design @ parameters)
        gradient = design.T @ (weights * (probability - rewards)) + _RIDGE * (parameters - identity)
        curvature = (design * (weights * probability * (1 - probability))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        size, present = 1.0, loss(parameters)
        while size > 1e-6 and loss(parameters - size * step) > present:
            size /= 2
        parameters = parameters - size * step
        if float(np.abs(size * step).max()) < 1e-9:
            break
    return float(parameters[0]), float(parameters[1])
