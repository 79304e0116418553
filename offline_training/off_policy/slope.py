"""Choosing a hyperparameter of an estimator by the log alone, where more of it is more bias and less variance.

SLOPE: Su, Srinath and Krishnamurthy, "Adaptive Estimator Selection for Off-Policy Evaluation" (ICML 2020),
with the constant of Tucker and Lee, "Improved Estimator Selection for Off-Policy Evaluation" (2021).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from feature_store.arrays import Float64
from offline_training.experiment.statistics import Ratio

_CONFIDENCE = 0.95
_QUANTILES = (1.0, 0.999, 0.995, 0.99, 0.975, 0.95, 0.9)
_SLACK = math.sqrt(6) - 1


def grid(weights: Float64) -> list[float]:
    """Values of lambda to choose from, the least biased first: infinite, then quantiles of the weights above 0."""
    positive = weights[weights > 0]
    if not len(positive):
        return [math.inf]
    return [math.inf, *sorted({float(limit) for limit in np.quantile(positive, _QUANTILES)}, reverse=True)]


def slope(estimates: Sequence[Ratio]) -> int:
    """The last of the estimates, the least biased first, up to which all agree: |v_i - v_j| <= c_i + 1.45 c_j for all
    j < i that came before, c being half an interval of 95 %."""
    widths = [float(stats.t.ppf((1 + _CONFIDENCE) / 2, max(e.degrees, 1.0))) * e.standard_error for e in estimates]
    order = sorted(range(len(estimates)), key=lambda i: -widths[i])  # of equal widths the less biased first
    kept: list[int] = []
    for i in order:
        agrees = (abs(estimates[i].value - estimates[j].value) <= widths[i] + _SLACK * widths[j] for j in kept)
        if not all(agrees):
            break
        kept.append(i)
    return kept[-1]
