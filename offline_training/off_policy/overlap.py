"""Whether a log can speak for the evaluated policy at all."""

import math

import msgspec
import numpy as np

from feature_store.arrays import Float64
from offline_training.off_policy.slate_log import SlateLog
from offline_training.off_policy.weights import cumulative_weights

MIN_EFFECTIVE_SIZE = 50.0  # below it an interval that assumes normality is not to be believed
MAX_WEIGHT_SHARE = 0.1  # nor when a single decision carries more than this of all weight
MAX_UNSUPPORTED = 0.05  # of what the evaluated policy does: what was never shown has no value in the log
PROPENSITY_ALARM = 4.0  # standard errors between the mean weight and 1 ...
_PROPENSITY_TOLERANCE = 0.05  # ... and so much at least


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How well the log overlaps with the evaluated policy, at the position where it does least."""

    decisions: int
    position: int  # counted from 1
    effective_size: float  # Kish: (sum w)^2 / sum w^2
    max_weight: float
    max_weight_share: float  # of the sum of all weights
    mean_weight: float  # close to 1 if the logged probabilities are right
    warning: str | None
    unsupported_share: float | None = None  # what the evaluated policy would do and the log never did; None: not known


def overlap(log: SlateLog, weights: Float64) -> Overlap:
    """Looks at the weights (n, S) of each position and reports the one with the smallest effective size relative to its
    decisions."""
    positions = np.flatnonzero(log.present.any(axis=0))
    total, squares = weights.sum(axis=0), (weights**2).sum(axis=0)
    decisions = log.present.sum(axis=0)
    effective = np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)
    worst = int(positions[np.argmin(effective[positions] / decisions[positions])])
    largest = float(weights[:, worst].max())
    share = largest / float(total[worst]) if total[worst] > 0 else 1.0
    unsupported = unsupported_share(log)
    return Overlap(
        decisions=int(decisions[worst]),
        position=worst + 1,
        effective_size=float(effective[worst]),
        max_weight=largest,
        max_weight_share=share,
        mean_weight=float(total[worst] / decisions[worst]),
        unsupported_share=unsupported,
        warning=_warning(float(effective[worst]), int(decisions[worst]), worst + 1, share, unsupported),
    )


def unsupported_share(log: SlateLog) -> float | None:
    """The share of the evaluated policy's impressions that the log never makes: each position's chance of it, as often
    as the policy gets there within what the log shows. None if the log does not say."""
    if log.unsupported is None:
        return None
    steps = np.where(log.present, 1 - log.unsupported, 1.0)
    # Once a slot holds what was never shown, the rest of that slate is not in the log either.
    lost = 1 - np.cumprod(np.clip(steps, 0, 1), axis=1)
    return float(lost[log.present].mean())


def propensity_alarm(log: SlateLog) -> str | None:
    """What is wrong with the logged probabilities, None: nothing that can be seen. Under right ones the weights of the
    first position have the mean 1, less what the log does not support."""
    present = log.present[:, 0]
    weights = cumulative_weights(log)[present, 0]
    expected = 1.0 if log.unsupported is None else 1 - float(log.unsupported[present, 0].mean())
    error = float(weights.std(ddof=1)) / math.sqrt(len(weights)) if len(weights) > 1 else math.inf
    gap = float(weights.mean()) - expected
    if abs(gap) <= max(PROPENSITY_ALARM * error, _PROPENSITY_TOLERANCE):
        return None
    if gap < 0 and log.unsupported is None:
        cause = "the evaluated policy does what the log never does, or the logged probabilities are too high"
    else:
        cause = "the logged probabilities are not those that the log was made with"
    return f"The mean weight at the first position is {weights.mean():.3f} and should be {expected:.3f}: {cause}."


def _warning(effective: float, decisions: int, position: int, share: float, unsupported: float | None) -> str | None:
    if unsupported is not None and unsupported > MAX_UNSUPPORTED:
        return (
            f"{unsupported:.0%} of what the evaluated policy would show was never shown by the policy that made the "
            "log, so that nothing is known of its value."
        )
    if effective < MIN_EFFECTIVE_SIZE:
        return (
            f"At position {position} the {decisions:,} logged decisions are worth only {effective:.1f}: the log hardly "
            "overlaps with the evaluated policy, and the interval is not to be believed."
        )
    if share > MAX_WEIGHT_SHARE:
        return (
            f"At position {position} a single decision carries {share:.0%} of all weight, "
            "and the interval is not to be believed."
        )
    return None
