"""How the users of the next ramp are dealt when traffic may move to better variants."""

import numpy as np

from feature_store.contracts.experiments import Plan
from offline_training.experiment.analysis import estimates, weighted_arms
from offline_training.experiment.metrics import METRICS
from offline_training.experiment.outcomes import Outcomes

_LEAST_USERS = 50  # of each variant: with fewer its estimate is no normal one, and the plan's weights stay
_LEAST = 0.2  # of an equal share stays with every variant, so that nobody counts more than five times
_DRAWS = 20_000


def thompson(plan: Plan, found: Outcomes) -> dict[str, float]:
    """The chance that each variant is the best in the metric that decides, mixed with equal shares.

    Thompson sampling over variants: Scott, "A modern Bayesian look at the multi-armed bandit" (2010), with a flat prior
    and normal posteriors around the weighted estimates. Dealing by known chances keeps the analysis valid: each user
    counts by the inverse of theirs (analysis.weights_of), which _LEAST bounds.
    """
    metric, names = METRICS[plan.metric], [variant.name for variant in plan.variants]
    ratios = estimates(metric, weighted_arms(plan, found))
    if any(name not in ratios or len(ratios[name].influence) < _LEAST_USERS for name in names):
        return plan.shares()
    sign = 1 if metric.higher_is_better else -1
    levels = np.array([sign * ratios[name].value for name in names])
    errors = np.array([ratios[name].standard_error for name in names])
    draws = np.random.default_rng(0).normal(levels, errors, (_DRAWS, len(names)))
    best = np.bincount(draws.argmax(axis=1), minlength=len(names)) / _DRAWS
    chances = (1 - _LEAST) * best + _LEAST / len(names)
    return dict(zip(names, chances.round(4).tolist(), strict=True))
