"""Intervals around off-policy estimates: approximate ones for any estimator, and bounds that assume no normality."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.experiment.statistics import Interval, Ratio

_LEAST = 1e-12  # means that bets are made against lie so far from 0 and 1
_HALVINGS = 50


def clustered(value: float, per_decision: Float64, users: Int64) -> Ratio:
    """An estimate with the influence of each user: per_decision (n,) is that of each decision, of mean 0 together."""
    _, codes = np.unique(users, return_inverse=True)
    influence = np.bincount(codes, weights=per_decision).astype(np.float64)
    count = len(influence)
    error = math.sqrt(count / (count - 1) * float(influence @ influence)) if count > 1 else math.inf
    return Ratio(value, error, count - 1.0, influence)


def skewed_interval(estimate: Ratio, confidence: float) -> Interval:
    """A t interval that knows how skewed and heavy-tailed the influences are.

    With u units, sigma their deviation and gamma their skewness, the quantiles of t go through the inverse of Hall's
    transformation, g(s) = s + gamma s^2 / 3 + gamma^2 s^3 / 27 + gamma / (6 u) for s = (estimate - truth) / sigma
    ("On the Removal of Skewness by Transformation", JRSS B 54, 1992). How many degrees of freedom t has is how well
    sigma is known: 2 (E s^2)^2 / Var s^2 = 2 u / (kurtosis - 1), after Satterthwaite, and at most u - 1.
    """
    count = len(estimate.influence)
    if count < 2:
        return Interval(value=estimate.value, low=None, high=None)
    squares = estimate.influence**2
    total = float(squares.sum())
    if total <= 0:
        return Interval(value=estimate.value, low=estimate.value, high=estimate.value)
    skewness = float((estimate.influence**3).sum()) / total**1.5 * math.sqrt(count)
    kurtosis = count * float((squares**2).sum()) / total**2
    degrees = min(count - 1.0, max(1.0, 2 * count / max(kurtosis - 1, 1e-12)))
    quantile = float(stats.t.ppf((1 + confidence) / 2, degrees)) / math.sqrt(count)
    scale = estimate.standard_error * math.sqrt(count)
    ends = [scale * _untransformed(x, skewness, count) for x in (quantile, -quantile)]
    return Interval(value=estimate.value, low=estimate.value - ends[0], high=estimate.value - ends[1])


def empirical_bernstein(values: Float64, upper: float, confidence: float) -> Interval:
    """Bounds on the mean of independent values (n,) in [0, upper], for any n: Maurer and Pontil, "Empirical Bernstein
    bounds and sample variance penalization" (COLT 2009), Theorem 4, on either side. Raises InvalidInput for a value
    outside its range."""
    _check_range(values, upper)
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Interval(value=mean, low=0.0, high=upper)
    log_term = math.log(4 / (1 - confidence))
    half = math.sqrt(2 * float(values.var(ddof=1)) * log_term / n) + 7 * upper * log_term / (3 * (n - 1))
    return Interval(value=mean, low=max(0.0, mean - half), high=min(upper, mean + half))


def betting(values: Float64, upper: float, confidence: float) -> Interval:
    """Bounds on the mean of independent values (n,) in [0, upper], for any n and mostly the tighter ones: the hedged
    capital of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 86, 2024),
    with predictable bets for a fixed n. The values stand in an order that they did not choose. Raises
    InvalidInput for a value outside its range."""
    _check_range(values, upper)
    alpha, n = 1 - confidence, len(values)
    x = values / upper
    t = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.sqrt(2 * math.log(2 / alpha) / (n * before))
    most = math.log(2 / alpha)

    def believed(m: float) -> bool:
        """Whether betting against the mean m has not made too much money, upwards or downwards."""
        gain = x - m
        up = float(np.log1p(np.minimum(bets, 0.5 / m) * gain).sum())
        down = float(np.log1p(-np.minimum(bets, 0.5 / (1 - m)) * gain).sum())
        return max(up, down) < most

    value = float(x.mean())
    low, high = (_edge(believed, min(max(value, _LEAST), 1 - _LEAST), end) for end in (_LEAST, 1 - _LEAST))
    return Interval(value=upper * value, low=upper * low, high=upper * high)


def _edge(believed: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of an interval between a point within it and one beyond it, the one beyond if that is within too."""
    if believed(outside):
        return float(round(outside))
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if believed(middle) else (inside, middle)
    return outside


def _untransformed(x: float, skewness: float, count: int) -> float:
    """s with g(s) = x."""
    if abs(skewness) < 1e-6:
        return x
    inner = 1 + skewness * (x - skewness / (6 * count))
    return 3 / skewness * (math.copysign(abs(inner) ** (1 / 3), inner) - 1)


def _check_range(values: Float64, upper: float) -> None:
    if not len(values) or not (values.min() >= 0 and values.max() <= upper * (1 + 1e-9)):
        found = f"{values.min()}..{values.max()}" if len(values) else "none"
        raise InvalidInput(f"A bound needs values in [0, {upper}], found {found}. State the range of rewards.")
