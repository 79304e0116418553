"""Off-policy evaluation: what another policy would have earned, from the log of an exploring one.

A decision logs its slate, the exploration set, the policy's estimates and the exact probability of each shown item at
its position given the slots before it. That is enough to weight what happened by how much more often another policy,
here the greedy one, would have done it. Every estimator is a pure function over a SlateLog; with one position per slate
they are the ordinary estimators of a contextual bandit.

    w_k    = prod_{j<=k} pi(a_j | x, a_<j) / pi_0(a_j | x, a_<j)        cumulative weight at position k
    RIPS   = 1/n sum_i sum_k w_ik r_ik                                  position k depends on the slots before it
    IIPS   = 1/n sum_i sum_k pi(a_ik at k | x) / pi_0(a_ik at k | x) r_ik    it depends on nothing but item and position
    DR     = 1/n sum_i sum_k [ w_ik (r_ik - q(a_ik)) + w_i,k-1 E_pi q(.) ]

RIPS: McInerney et al., "Counterfactual Evaluation of Slate Recommendations with Sequential Reward Interactions" (KDD
2020), whose estimator is the self-normalised form. IIPS: Li et al., "Offline Evaluation of Ranking Policies with Click
Models" (KDD 2018), the item-position model. DR: Kiyohara et al., "Doubly Robust Off-Policy Evaluation for Ranking
Policies under the Cascade Behavior Model" (WSDM 2022), with the policy's own mean as q, here of the immediate reward
alone; its self-normalised form is the weighted doubly robust estimator of Thomas and Brunskill (ICML 2016).

All values are rewards per impression. An estimator takes a log that check() lets pass, and returns the value with the
linearised influence of each user, (users,), and how well the log overlaps with the evaluated policy.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.experiment.statistics import Interval, Ratio, interval, sums_by_user

MIN_EFFECTIVE_SIZE = 100.0  # below it an interval that assumes normality is not to be believed
MAX_WEIGHT_SHARE = 0.1  # nor when a single decision carries more than this of all weight


class SlateLog(NamedTuple):
    """Decisions as arrays, n of them, padded to S positions.

    Where `present` is False the other arrays hold anything finite.
    """

    users: Int64  # (n,) whose decision it was: rows of one user belong together
    present: Bool  # (n, S) the slate has this position
    rewards: Float64  # (n, S)
    target: Float64  # (n, S) pi: chance that the evaluated policy puts the shown item there, given the slots before
    logging: Float64  # (n, S) pi_0: the same of the policy that made the log, in (0, 1]
    model: Float64  # (n, S) q: the predicted reward of the shown item
    model_target: Float64  # (n, S) E_pi q: the predicted reward of what the evaluated policy would put there
    target_marginal: Float64 | None = None  # (n, S) pi: chance of the item at its position, whatever was before
    logging_marginal: Float64 | None = None  # (n, S) the same of pi_0


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the log can speak for the evaluated policy at all, at the position where it can least."""

    decisions: int
    position: int  # counted from 1
    effective_size: float  # Kish: (sum w)^2 / sum w^2
    max_weight: float
    max_weight_share: float  # of the sum of all weights
    mean_weight: float  # close to 1 if the logged probabilities are right
    warning: str | None


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator's value: reward per impression of the evaluated policy."""

    estimator: str
    value: Interval
    overlap: Overlap


class OffPolicyEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All estimators on one log, the one to read first named."""

    decisions: int
    users: int
    headline: str
    estimates: list[PolicyValue]

    def read_first(self) -> PolicyValue:
        """The estimate that the headline names."""
        return next(estimate for estimate in self.estimates if estimate.estimator == self.headline)


def rips(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Per-decision importance sampling with cumulative weights. Unbiased for any effect of earlier slots on later
    ones.
    """
    weights = cumulative_weights(log)
    return _plain(log, weights * log.rewards), overlap(log, weights)


def rips_normalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """RIPS as McInerney et al. define it: at each position the weights are made to add up. Slightly biased, less
    variance.
    """
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


def doubly_robust(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Cascade doubly robust: unbiased like RIPS whatever the model, and steadier the better the model."""
    weights = cumulative_weights(log)
    before = _before(log, weights)
    return _plain(log, weights * (log.rewards - log.model) + before * log.model_target), overlap(log, weights)


def doubly_robust_normalised(log: SlateLog) -> tuple[Ratio, Overlap]:
    """Weighted doubly robust: both kinds of weight made to add up at each position."""
    weights = cumulative_weights(log)
    before = _before(log, weights)
    return _normalised(log, [(weights, log.rewards - log.model), (before, log.model_target)]), overlap(log, weights)


ESTIMATORS = {
    "RIPS": rips,
    "RIPS, self-normalised": rips_normalised,
    "IIPS": iips,
    "IIPS, self-normalised": iips_normalised,
    "doubly robust": doubly_robust,
    "doubly robust, self-normalised": doubly_robust_normalised,
}
HEADLINE = "doubly robust, self-normalised"
_NEEDS_MARGINALS = {"IIPS", "IIPS, self-normalised"}
_ROUNDING = 1e-9
_NAMES = {
    "rewards": "The reward",
    "target": "The target probability",
    "logging": "The logged probability",
    "model": "The predicted reward",
    "model_target": "The predicted reward of the evaluated policy",
    "target_marginal": "The marginal target probability",
    "logging_marginal": "The marginal logged probability",
}


def evaluate(log: SlateLog, confidence: float = 0.95) -> OffPolicyEvaluation:
    """Runs every estimator whose inputs the log has; intervals at the given confidence, in (0, 1). Raises InvalidInput
    for a log that check() refuses."""
    check(log)
    estimates = []
    for name, estimator in ESTIMATORS.items():
        if name in _NEEDS_MARGINALS and log.logging_marginal is None:
            continue
        found, support = estimator(log)
        estimates.append(PolicyValue(estimator=name, value=interval(found, confidence), overlap=support))
    return OffPolicyEvaluation(
        decisions=len(log.users), users=len(np.unique(log.users)), headline=HEADLINE, estimates=estimates
    )


def check(log: SlateLog) -> None:
    """Raises InvalidInput for an empty log, a number that is not finite, a probability outside its range, or marginal
    probabilities of one policy alone."""
    if not log.present.any():
        raise InvalidInput("Off-policy evaluation needs at least one logged slate. Run the experiment longer.")
    if (log.target_marginal is None) != (log.logging_marginal is None):
        raise InvalidInput("There are marginal probabilities of one policy, but not of the other. Give both, or none.")
    for name, values in log._asdict().items():
        if name in _NAMES and values is not None and not (finite := np.isfinite(values)).all():
            decision, position = np.argwhere(~finite)[0]
            raise InvalidInput(
                f"{_NAMES[name]} of decision {decision} at position {position + 1} is {values[decision, position]}: "
                "no estimate can be made of it. Leave the decision out."
            )
    for name, values in (("Logged", log.logging), ("Logged marginal", log.logging_marginal)):
        if values is not None and not ((found := values[log.present]).min() > 0 and found.max() <= 1 + _ROUNDING):
            raise InvalidInput(
                f"{name} probabilities lie in {found.min()}..{found.max()}, they must lie in (0, 1]: "
                "whatever was shown had a chance."
            )
    for name, values in (("Target", log.target), ("Target marginal", log.target_marginal)):
        if values is not None and not ((found := values[log.present]).min() >= 0 and found.max() <= 1 + _ROUNDING):
            raise InvalidInput(f"{name} probabilities lie in {found.min()}..{found.max()}, they must lie in [0, 1].")


def cumulative_weights(log: SlateLog) -> Float64:
    """w (n, S): the product of the probability ratios up to each position; 0 where the slate has no such position."""
    steps = np.divide(log.target, log.logging, out=np.ones_like(log.target), where=log.present)
    return np.where(log.present, np.cumprod(steps, axis=1), 0.0)


def item_position_weights(log: SlateLog) -> Float64:
    """(n, S) ratios of the marginal probabilities; 0 where the slate has no such position. Raises InvalidInput without
    them.
    """
    if log.target_marginal is None or log.logging_marginal is None:
        raise InvalidInput("Item-position weights need the marginal probabilities of both policies, this log has none.")
    possible = log.present & (log.target_marginal > 0)
    return np.divide(log.target_marginal, log.logging_marginal, out=np.zeros_like(log.target), where=possible)


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
    return Overlap(
        decisions=int(decisions[worst]),
        position=worst + 1,
        effective_size=float(effective[worst]),
        max_weight=largest,
        max_weight_share=share,
        mean_weight=float(total[worst] / decisions[worst]),
        warning=_warning(float(effective[worst]), int(decisions[worst]), worst + 1, share),
    )


def _warning(effective: float, decisions: int, position: int, share: float) -> str | None:
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


def _before(log: SlateLog, weights: Float64) -> Float64:
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    return np.where(log.present, before, 0.0)


def _plain(log: SlateLog, terms: Float64) -> Ratio:
    """sum of the terms over the impressions, clustered by user as in an experiment."""
    earned = np.where(log.present, terms, 0.0).sum(axis=1)
    shown = log.present.sum(axis=1).astype(np.float64)
    total = float(shown.sum())
    value = float(earned.sum()) / total
    (influence,) = sums_by_user(log.users, (earned - value * shown) / total)
    return _clustered(value, influence)


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
    (influence,) = sums_by_user(log.users, per_decision)
    return _clustered(value, influence)


def _clustered(value: float, influence: Float64) -> Ratio:
    users = len(influence)
    error = math.sqrt(users / (users - 1) * float(influence @ influence)) if users > 1 else math.inf
    return Ratio(value, error, users - 1.0, influence)
