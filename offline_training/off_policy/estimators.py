"""Off-policy evaluation: what another policy would have earned, from the log of an exploring one.

A decision logs its slate and the exact probability of each shown item at its position given the slots before it. That
is enough to weight what happened by how much more often another policy would have done it. Every estimator is a pure
function over a SlateLog. With w_k the cumulative weight at position k (weights.py), q a prediction of the reward that
did not see it, and q_pi = E_pi q, all but the item-position ones have one form, of which f is what they differ in:

    value = 1/N sum_i sum_k [ f(w_ik) (r_ik - q_ik) + w_i,k-1 q_pi,ik ]          N: impressions

    IPS, RIPS       f = w, q = 0              McInerney et al., "Counterfactual Evaluation of Slate Recommendations with
                                              Sequential Reward Interactions" (KDD 2020)
    SNIPS           f = w / mean w, q = 0     Swaminathan and Joachims, "The Self-Normalized Estimator for
                                              Counterfactual Learning" (NeurIPS 2015)
    clipped         f = min(w, lambda), q = 0 Ionides, "Truncated Importance Sampling" (JCGS 2008)
    DM              f = 0                     of one position only
    DR              f = w                     Dudik, Langford and Li, "Doubly Robust Policy Evaluation and Learning"
                                              (ICML 2011); of slates: Kiyohara et al., "Doubly Robust Off-Policy
                                              Evaluation for Ranking Policies under the Cascade Behavior Model" (WSDM
                                              2022), with the immediate reward as q
    SNDR            f = w / mean w            Thomas and Brunskill, "Data-Efficient Off-Policy Policy Evaluation"
                                              (ICML 2016): weighted DR, both kinds of weight normalised
    switch-DR       f = w [w <= lambda]       Wang, Agarwal and Dudik, "Optimal and Adaptive Off-policy Evaluation in
                                              Contextual Bandits" (ICML 2017)
    DRos            f = lambda^2 w / (w^2 + lambda^2)   Su et al., "Doubly robust off-policy evaluation with shrinkage"
                                              (ICML 2020)

lambda is a weight and chosen by the data (slope.py); where it shrinks, an interval speaks of the variance and not of
the bias. Under the item-position model, that a reward depends on nothing but the item and its position, IIPS weighs by
marginals: Li et al., "Offline Evaluation of Ranking Policies with Click Models" (KDD 2018). What the pseudo-inverse
assumes stands in weights.py, and so does MIPS where both policies' chances are known: IPS on a log of categories.

All values are rewards per impression. An estimator takes a log that check() lets pass, and returns the value with the
linearised influence of each user, (users,), and how well the log overlaps with the evaluated policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Float64
from feature_store.contracts.errors import InvalidInput
from offline_training.experiment.statistics import Interval, Ratio
from offline_training.off_policy.intervals import betting, clustered, empirical_bernstein, skewed_interval
from offline_training.off_policy.overlap import Overlap, overlap, propensity_alarm
from offline_training.off_policy.slate_log import SlateLog, check
from offline_training.off_policy.slope import grid, slope
from offline_training.off_policy.weights import (
    cumulative_weights,
    item_position_weights,
    pseudo_inverse_weights,
    weights_before,
)


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator's value: reward per impression of the evaluated policy."""

    estimator: str
    value: Interval
    overlap: Overlap
    parameter: float | None = None  # the lambda that the data chose


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Intervals around IPS that hold for any number of users, if a user's decisions were as many anyway."""

    empirical_bernstein: Interval
    betting: Interval


class OffPolicyEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All estimators on one log, the one to read first named."""

    decisions: int
    users: int
    headline: str
    estimates: list[PolicyValue]
    propensity_alarm: str | None = None  # why the logged probabilities are not to be believed
    bounds: Bounds | None = None  # None: the range of rewards is not known

    def read_first(self) -> PolicyValue:
        """The estimate that the headline names."""
        return next(estimate for estimate in self.estimates if estimate.estimator == self.headline)

    @property
    def refusal(self) -> str | None:
        """Why no value should be read from this log at all, None: one may be."""
        return self.propensity_alarm or self.read_first().overlap.warning


class Shrinkage(NamedTuple):
    """A family of f above: (weights (n, S), lambda) -> (n, S), and whether it corrects a model or q is 0."""

    name: str
    shrink: Callable[[Float64, float], Float64]
    corrects: bool


CLIPPED = Shrinkage("clipped", np.minimum, corrects=False)
SWITCH = Shrinkage("switch-DR", lambda w, limit: np.where(w <= limit, w, 0.0), corrects=True)
SHRUNK = Shrinkage("DRos", lambda w, limit: limit**2 * w / (w**2 + limit**2), corrects=True)
SHRINKAGES = (CLIPPED, SWITCH, SHRUNK)


def rips(log: SlateLog) -> tuple[Ratio, Overlap]:
    """IPS, of slates with cumulative weights. Unbiased for any effect of earlier slots on later ones."""
    weights = cumulative_weights(log)
    return _plain(log, weights * log.rewards), overlap(log, weights)


def rips_normalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """SNIPS: at each position the weights are made to add up. Slightly biased, less variance."""
    weights = cumulative_weights(log)
    return _normalised(log, [(weights, log.rewards)]), overlap(log, weights)


def iips(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Item-position importance sampling. Unbiased if a reward depends on nothing but the item and its position. Raises
    InvalidInput for a log without marginal probabilities."""
    weights = item_position_weights(log)
    return _plain(log, weights * log.rewards), overlap(log, weights)


def iips_normalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """IIPS with the weights of each position made to add up. Raises InvalidInput for a log without marginal
    probabilities."""
    weights = item_position_weights(log)
    return _normalised(log, [(weights, log.rewards)]), overlap(log, weights)


def pseudo_inverse(log: SlateLog) -> tuple[Ratio, Overlap]:
    """A slate's rewards weighed as a whole by the sum of its item-position weights. Unbiased if these rewards add up
    from slots. Raises InvalidInput for a log without marginal probabilities."""
    weights = pseudo_inverse_weights(log)
    return _plain(log, weights * log.rewards), overlap(log, item_position_weights(log))


def direct_method(log: SlateLog) -> tuple[Ratio, Overlap]:
    """What the model says of the evaluated policy. As good as the model, and of one position only: further down it
    would have to say what comes before. Raises InvalidInput for slates."""
    if log.positions > 1:
        raise InvalidInput(f"The direct method is for one item per decision, this log has {log.positions}.")
    return _plain(log, log.model_target), overlap(log, cumulative_weights(log))


def doubly_robust(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Unbiased like IPS whatever the model, and steadier the better the model."""
    weights = cumulative_weights(log)
    before = weights_before(log, weights)
    return _plain(log, weights * (log.rewards - log.model) + before * log.model_target), overlap(log, weights)


def doubly_robust_normalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Weighted doubly robust: both kinds of weight made to add up at each position."""
    weights = cumulative_weights(log)
    before = weights_before(log, weights)
    return _normalised(log, [(weights, log.rewards - log.model), (before, log.model_target)]), overlap(log, weights)


def shrunk(log: SlateLog, family: Shrinkage, parameter: float) -> Ratio:
    """The family's estimate for one lambda above 0; infinite: the unbiased one."""
    weights = cumulative_weights(log)
    factor = weights if np.isinf(parameter) else family.shrink(weights, parameter)
    if not family.corrects:
        return _plain(log, factor * log.rewards)
    before = weights_before(log, weights)
    return _plain(log, factor * (log.rewards - log.model) + before * log.model_target)


def tuned(log: SlateLog, family: Shrinkage) -> tuple[Ratio, float]:
    """The family's estimate for the lambda that SLOPE chooses, and that lambda."""
    parameters = grid(cumulative_weights(log)[log.present])
    estimates = [shrunk(log, family, parameter) for parameter in parameters]
    chosen = slope(estimates)
    return estimates[chosen], parameters[chosen]


def marginalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """MIPS: an impression weighs what those of its category weigh on average, E[w | category], which is the ratio of
    the categories' chances (Saito and Joachims, section 3.2). Unbiased if an item acts through its category alone.
    Raises InvalidInput for slates, and for a log without categories."""
    if log.category is None or log.positions > 1:
        raise InvalidInput("Marginalised weights need one item per decision, and its category.")
    _, codes = np.unique(log.category, return_inverse=True)
    weights, rewards, count = cumulative_weights(log)[:, 0], log.rewards[:, 0], np.bincount(codes)
    weight, reward = (np.bincount(codes, weights=column) / count for column in (weights, rewards))
    marginal = weight[codes]
    value = float((marginal * rewards).mean())
    # The mean weight of a category is an estimate, too: the last term is its influence.
    influence = (marginal * rewards - value + (weights - marginal) * reward[codes]) / len(rewards)
    return clustered(value, influence, log.users), overlap(log, marginal[:, None])


Estimator = Callable[[SlateLog], tuple[Ratio, Overlap]]
ESTIMATORS: dict[str, Estimator] = {
    "RIPS": rips,
    "RIPS, self-normalised": rips_normalised,
    "IIPS": iips,
    "IIPS, self-normalised": iips_normalised,
    "pseudo-inverse": pseudo_inverse,
    "MIPS": marginalised,
    "direct method": direct_method,
    "doubly robust": doubly_robust,
    "doubly robust, self-normalised": doubly_robust_normalised,
}
HEADLINE = "doubly robust, self-normalised"
SECOND = "IIPS, self-normalised"  # assumes more, and needs less overlap: read first where the headline is refused
_NEEDS_MARGINALS = {"IIPS", "IIPS, self-normalised", "pseudo-inverse"}
_NEEDS_CATEGORY = {"MIPS"}
_OF_ONE_POSITION = {"direct method", "MIPS"}


def evaluate(
    log: SlateLog, confidence: float = 0.95, reward_range: tuple[float, float] | None = None
) -> OffPolicyEvaluation:
    """Runs every estimator whose inputs the log has; intervals at the given confidence, in (0, 1). reward_range: that
    of a single reward, for bounds without approximation.

    Raises InvalidInput for a log that check() refuses, and for rewards outside their range.
    """
    check(log)
    estimates = []
    for name, estimator in ESTIMATORS.items():
        if name in _NEEDS_MARGINALS and log.logging_marginal is None:
            continue
        if name in _OF_ONE_POSITION and log.positions > 1:
            continue
        if name in _NEEDS_CATEGORY and log.category is None:
            continue
        found, support = estimator(log)
        estimates.append(PolicyValue(estimator=name, value=skewed_interval(found, confidence), overlap=support))
    support = estimates[0].overlap
    for family in SHRINKAGES:
        found, parameter = tuned(log, family)
        value = skewed_interval(found, confidence)
        estimates.append(PolicyValue(estimator=family.name, value=value, overlap=support, parameter=parameter))
    return OffPolicyEvaluation(
        decisions=len(log.users),
        users=len(np.unique(log.users)),
        headline=_headline(estimates),
        estimates=estimates,
        propensity_alarm=propensity_alarm(log),
        bounds=None if reward_range is None else bounds(log, *reward_range, confidence),
    )


def bounds(log: SlateLog, least: float, most: float, confidence: float) -> Bounds:
    """Bounds around the estimate of IPS, or RIPS, with rewards in [least, most]; the largest weight is taken for the
    largest possible. Raises InvalidInput for a reward outside its range."""
    weights = cumulative_weights(log)  # 0 where nothing was shown
    rewards = log.rewards[log.present]
    if rewards.min() < least or rewards.max() > most:
        raise InvalidInput(
            f"Rewards lie in {rewards.min()}..{rewards.max()}, the range that was declared is {least}..{most}."
        )
    _, codes = np.unique(log.users, return_inverse=True)
    shown = np.bincount(codes, weights=log.present.sum(axis=1))
    scale = shown.mean()  # a user's sum over this has the mean per impression
    values = np.bincount(codes, weights=(weights * (log.rewards - least)).sum(axis=1)) / scale
    upper = float(weights.max() * (most - least) * shown.max() / scale) or 1.0
    shift = least * float(weights.sum() / log.present.sum())
    found = [bound(values, upper, confidence) for bound in (empirical_bernstein, betting)]
    moved = [Interval(value=i.value + shift, low=_moved(i.low, shift), high=_moved(i.high, shift)) for i in found]
    return Bounds(empirical_bernstein=moved[0], betting=moved[1])


def _headline(estimates: list[PolicyValue]) -> str:
    supported = {estimate.estimator for estimate in estimates if estimate.overlap.warning is None}
    return SECOND if HEADLINE not in supported and SECOND in supported else HEADLINE


def _moved(end: float | None, shift: float) -> float | None:
    return None if end is None else end + shift


def _plain(log: SlateLog, terms: Float64) -> Ratio:
    """sum of the terms over the impressions, clustered by user as in an experiment."""
    earned = np.where(log.present, terms, 0.0).sum(axis=1)
    shown = log.present.sum(axis=1).astype(np.float64)
    total = float(shown.sum())
    value = float(earned.sum()) / total
    return clustered(value, (earned - value * shown) / total, log.users)


def _normalised(log: SlateLog, parts: list[tuple[Float64, Float64]]) -> Ratio:
    """Weighted means per position of each (weights, terms), added up over positions by their share of the impressions.

    The influence of a decision on sum w t / sum w is w (t - mean) / sum w, the linearised ratio once more.
    """
    share = log.present.sum(axis=0) / log.present.sum()
    value, per_decision = 0.0, np.zeros(len(log.users))
    for weights, terms in parts:
        total = weights.sum(axis=0)
        scale = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        mean = np.divide((weights * terms).sum(axis=0), total, out=np.zeros_like(share), where=total > 0)
        value += float(share @ mean)
        per_decision += (weights * np.where(log.present, terms - mean, 0.0)) @ scale
    return clustered(value, per_decision, log.users)
