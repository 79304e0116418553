"""Platt scaling: makes a model's log-odds mean what they say."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64

_ITERATIONS = 50
_RIDGE = 1.0
_LEAST_SLOPE = 0.05
MOST_STEEPNESS = 30.0


class Calibration(NamedTuple):
    """sigmoid(slope * logit + <coefficients, levels> + intercept)."""

    slope: float
    levels: Float64  # (k,)
    intercept: float

    def probability(self, logits: Float64, levels: Float64) -> Float64:
        """(n,) of logits (n,) and levels (n, k)."""
        return sigmoid(self.slope * logits + levels @ self.levels + self.intercept)


def platt(logits: Float64, levels: Float64, rewards: Float64, weights: Float64) -> Calibration:
    """The calibration that fits the rewards (Platt 1999, Eq. 1), with levels (n, k) beside the logits: how often people
    want anything differs between them, and what only tells people apart must not tilt the slope.

    logits, rewards in [0, 1], weights: (n,), weights averaging about 1. Newton's method on the weighted log-likelihood;
    a ridge that counts as one row pulls towards the identity (1, 0, 0), so that few rows, or rows all alike, change
    little. A fit that would reverse the order has the least slope, _LEAST_SLOPE, and fits the rest to that.
    """
    design = np.column_stack([logits, levels, np.ones_like(logits)])
    found = _newton(design, rewards, weights, 1.0, free_slope=True)
    if not np.isfinite(found).all() or found[0] <= _LEAST_SLOPE:
        found = _newton(design, rewards, weights, _LEAST_SLOPE, free_slope=False)
    return Calibration(float(found[0]), found[1:-1], float(found[-1]))


def steepness(
    logits: Float64, levels: Float64, rewards: Float64, weights: Float64, moments: Int64, slope: float
) -> float:
    """How many times as steeply as the calibrated log-odds, whose slope over all rows is `slope`, rewards rise with the
    logits within a moment: between what is offered to one person at one time.

    The coefficient of the logits with their mean of each moment held fixed (Mundlak 1978), over `slope`; arrays as in
    platt, moments (n,) numbers the moments. Within MOST_STEEPNESS of 1, either way.
    """
    _, number = np.unique(moments, return_inverse=True)
    weight = np.bincount(number, weights)
    mean = np.divide(np.bincount(number, weights * logits), weight, out=np.zeros(len(weight)), where=weight > 0)[number]
    within = platt(logits - mean, np.column_stack([mean, levels]), rewards, weights).slope
    return float(np.clip(within / slope, 1 / MOST_STEEPNESS, MOST_STEEPNESS))


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    result: Float64 = 0.5 * (1 + np.tanh(0.5 * x))
    return result


def _newton(design: Float64, rewards: Float64, weights: Float64, slope: float, free_slope: bool) -> Float64:
    size = design.shape[1]
    identity = slope * np.eye(size)[0]
    free = np.ones(size, np.bool_)
    free[0] = free_slope
    parameters: Float64 = identity.copy()

    def loss(candidate: Float64) -> float:
        x = design @ candidate
        ridge = _RIDGE / 2 * float(((candidate - identity) ** 2).sum())
        return float((weights * (np.logaddexp(0, x) - rewards * x)).sum()) + ridge

    for _ in range(_ITERATIONS):
        probability = sigmoid(design @ parameters)
        gradient = design.T @ (weights * (probability - rewards)) + _RIDGE * (parameters - identity)
        curvature = (design * (weights * probability * (1 - probability))[:, None]).T @ design + _RIDGE * np.eye(size)
        step = np.zeros(size)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        share, present = 1.0, loss(parameters)
        while share > 1e-6 and loss(parameters - share * step) > present:
            share /= 2
        parameters = parameters - share * step
        if float(np.abs(share * step).max()) < 1e-9:
            break
    return parameters
