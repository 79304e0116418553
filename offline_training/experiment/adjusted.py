"""Sharper and fairer comparisons: covariates from before, several comparisons at once, slices. All pure."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from feature_store.arrays import Float64
from offline_training.experiment.statistics import Ratio, difference


def cuped(
    arms: Mapping[str, Ratio], covariates: Mapping[str, Float64], weights: Mapping[str, Float64] | None = None
) -> tuple[dict[str, Ratio], float]:
    """The arms' ratios with what users did before the experiment taken out, and the share of the variance of a
    difference that is gone.

    covariates: by arm, (u, k), row by row as the ratio's users. weights: by arm, (u,), what the ratio's sums are
    multiplied with; None: 1. theta is that of Deng, Xu, Kohavi and Walker,
    "Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data" (WSDM 2013), section
    3.3, on the linearised metric z_i = u f_i (f: influence), within arms: theta = S_xx^-1 S_xz, both summed over arms.
    Then R_a - theta' (x-bar_a - x-bar), where x-bar is over all users.
    """
    names = list(arms)
    counted = {name: np.ones(len(covariates[name])) if weights is None else weights[name] for name in names}
    means = {name: np.average(covariates[name], axis=0, weights=counted[name]) for name in names}
    centred = {
        name: (covariates[name] - means[name]) * (counted[name] / counted[name].mean())[:, None] for name in names
    }
    z = {name: arms[name].influence * len(arms[name].influence) for name in names}
    s_xx = sum(centred[name].T @ centred[name] for name in names)
    s_xz = sum(centred[name].T @ z[name] for name in names)
    theta = np.linalg.lstsq(np.atleast_2d(s_xx), np.atleast_1d(s_xz), rcond=1e-9)[0]
    overall = np.average(
        np.concatenate([covariates[name] for name in names]),
        axis=0,
        weights=np.concatenate([counted[name] for name in names]),
    )
    adjusted, before, after = {}, 0.0, 0.0
    for name in names:
        users = len(z[name])
        influence = (z[name] - centred[name] @ theta) / users
        moved = float(theta @ (means[name] - overall))
        error = math.sqrt(users / (users - 1) * float(influence @ influence)) if users > 1 else math.inf
        degrees = max(users - 1.0 - np.atleast_2d(s_xx).shape[0], 0.0)
        adjusted[name] = Ratio(arms[name].value - moved, error, degrees, influence)
        before += float(arms[name].influence @ arms[name].influence)
        after += float(influence @ influence)
    return adjusted, 1 - after / before if before > 0 else 0.0


def relative(treatment: Ratio, control: Ratio) -> Ratio:
    """The difference of two independent groups of users, as a share of the control's value, which is not 0: it differs
    from 0 exactly if the difference does, for large effects too, which a ratio by the delta method would not."""
    change, unit = difference(treatment, control), abs(control.value)
    return Ratio(change.value / unit, change.standard_error / unit, change.degrees, change.influence / unit)


def always_valid_p(estimate: Ratio, confidence: float, planned: int) -> float:
    """The smallest alpha whose confidence sequence (statistics.always_valid) excludes 0 at this look: with v = n rho^2
    and z = value / standard error, min(1, sqrt(v + 1) exp(-z^2 v / (2 (v + 1)))). Its minimum over looks is valid at
    all of them."""
    n = len(estimate.influence)
    if n < 2 or not math.isfinite(estimate.standard_error):
        return 1.0
    if estimate.standard_error == 0:
        return 1.0 if estimate.value == 0 else 0.0
    alpha = 1 - confidence
    v = n * (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    z = estimate.value / estimate.standard_error
    return min(1.0, math.exp(0.5 * math.log(v + 1) - z**2 * v / (2 * (v + 1))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: the chance of one false discovery or more stays below each (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: of what is below each, the expected share of false discoveries stays below it (1995)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    adjusted, smallest = [0.0] * len(p_values), 1.0
    for rank, i in enumerate(order):
        smallest = min(smallest, p_values[i] * len(order) / (len(order) - rank))
        adjusted[i] = smallest
    return adjusted


class Shrunk(NamedTuple):
    """Effects in slices, drawn towards their mean as far as their differences may be noise."""

    effects: Float64  # (k,)
    errors: Float64  # (k,)
    between: float  # standard deviation of true effects between slices


def shrunk(effects: Float64, errors: Float64) -> Shrunk:
    """effects, errors (k,): estimates of slices and their standard errors.

    Each is the posterior mean of a normal model with the spread between slices by DerSimonian and Laird (1986):
    tau^2 = max(0, (Q - (k - 1)) / (sum w - sum w^2 / sum w)), w = 1 / se^2.
    """
    w = 1 / errors**2
    mean = float(w @ effects / w.sum())
    q = float(w @ (effects - mean) ** 2)
    scale = float(w.sum() - (w**2).sum() / w.sum())
    tau_sq = max(0.0, (q - (len(effects) - 1)) / scale) if scale > 0 else 0.0
    own = tau_sq / (tau_sq + errors**2)
    total = 1 / (errors**2 + tau_sq)
    mean = float(total @ effects / total.sum())
    variance = own * errors**2 + (1 - own) ** 2 / total.sum()
    return Shrunk(own * effects + (1 - own) * mean, np.sqrt(variance), math.sqrt(tau_sq))


def planned_users(deviation: float, effect: float, shares: Sequence[float], alpha: float, power: float) -> int:
    """Users of all variants together with whom a difference of `effect` from the control (the first share) is found
    with this power by a two-sided test: n = (z_(1 - alpha/2) + z_power)^2 deviation^2 (1 / s_0 + 1 / s) / effect^2 for
    the smallest share s. deviation: standard deviation of one user's linearised metric."""
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    spread = deviation**2 * (1 / shares[0] + 1 / min(shares[1:]))
    return math.ceil(z**2 * spread / effect**2)
