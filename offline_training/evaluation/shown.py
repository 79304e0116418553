"""Two models on what people were shown: whose predictions order a slate as its user did?

One of the two chose the slates. That makes likes of them likes of its own choice, and puts what it thinks most of where
people look first. Both are weighed out, by what the log knows of every slot: of item i at place k, shown with
probability p, given the slate so far,

    A(m)   = sum_i w_i s_i(m) / sum_i w_i       how a model m orders slates: over all likes, in [0, 1], 1/2 by chance
    w_i    = r_i / (p_i theta_k)                of what was liked, r_i in {0, 1}
    s_i(m) = sum_j u_j [m_i > m_j] / sum_j u_j  the share of the others that it scores lower, ties half; u_j = 1 / p_j

1 / p makes a slot as good as drawn from all that had a chance of it (Horvitz and Thompson 1952), at most MAX_CORRECTION
times (truncated as by Ionides 2008). 1 / theta_k makes good for what nobody looked at (Joachims, Swaminathan and
Schnabel, WSDM 2017, Eq. 4), theta_k = k^-gamma (their section 6) being read off the explored slots, whose items the
order of no model chose. An item is held against all others, not against those that were not liked: many of these were
not seen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from feature_store.arrays import Bool, Float64, Int64
from feature_store.user_features import UserFeatures
from offline_training.evaluation.differences import (
    CHAMPION,
    EVERYBODY,
    KNOWN_USERS,
    NEW_ITEMS,
    NEW_USERS,
    Difference,
)
from offline_training.evaluation.metrics import ece
from offline_training.experiment.impressions import RewardedDecision
from offline_training.experiment.statistics import interval, paired_difference, ratio
from offline_training.off_policy.greedy_policy import logged_choice
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

SLATES = "order within slates"  # A(m)
CALIBRATION = "calibration, 1 - ECE"
MAX_CORRECTION = 3.0  # more, and the few explored slots of a slate outweigh it: infra/decisions/release-gate.md
MAX_SLATES = 5_000
MAX_EXPONENT = 2.0
LEAST_EXPLORED_LIKES = 30  # to read off them how far down people look
_RESAMPLES = 200
_TAIL = 2.5  # percent


class Slate(NamedTuple):
    """What two models make of a slate; all (s,), of the items that both have a score for."""

    user: str
    stranger: bool  # somebody of whom nothing was known
    place: Int64  # from 1
    liked: Bool
    reward: Float64
    probability: Float64  # of showing it there, given the slate so far
    explored: Bool  # it was not the best of those left
    new: Bool  # the champion's training did not know it
    release: Float64  # predictions
    champion: Float64
    resolved: bool  # nothing can come any more


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was shown since the release was trained, and how much it can say of the order within slates."""

    slates: int
    impressions: int
    explored: int  # impressions
    explored_likes: int
    likes: int
    effective_likes: float  # Kish: (sum w)^2 / sum w^2
    position_exponent: float  # gamma; 0: people look at all places alike

    @property
    def tells(self) -> bool:
        """Whether enough was explored to know how far down people look."""
        return self.explored_likes >= LEAST_EXPLORED_LIKES


def slates_of(
    decisions: Sequence[RewardedDecision], release: Snapshot, champion: Snapshot, positive: float, closed_ms: float
) -> list[Slate]:
    """The slates that the champion made, with both models' predictions: its own as they were logged, and those of the
    release, given the same history. Items that the release does not know are left out, and those not seen; of many
    slates some, evenly. positive: rewards from which on an item was liked. closed_ms: nothing comes any more of
    decisions from before it."""
    made = [one for one in decisions if one.release == champion.release]
    if len(made) > MAX_SLATES:
        made = [made[at] for at in np.linspace(0, len(made) - 1, MAX_SLATES).astype(np.int64)]
    found = (_slate(one, release, champion, positive, one.time < closed_ms) for one in made)
    return [slate for slate in found if len(slate.place)]


def _slate(one: RewardedDecision, release: Snapshot, champion: Snapshot, positive: float, resolved: bool) -> Slate:
    slots = len(one.shown)
    position = release.graph.positions(one.shown)
    both = np.flatnonzero((position >= 0) & one.seen)
    chance, _ = logged_choice(one)
    predicted = np.empty(0)
    if len(both):
        past = UserFeatures(one.profile, one.history, frozenset())
        user = encode_user(release, past, Request(slate_size=slots, time=one.time))
        features = candidate_features(release, user, position[both])
        predicted = release.towers.predict(features).astype(np.float64)
    return Slate(
        user=one.user,
        stranger=not one.history,
        place=both + 1,
        liked=one.rewards[both] >= positive,
        reward=one.rewards[both],
        probability=one.probabilities[both],
        explored=chance[both] == 0,
        new=champion.graph.positions(one.shown)[both] < 0,
        release=predicted,
        champion=one.predicted[both],
        resolved=resolved,
    )


def explored_likes(decisions: Sequence[RewardedDecision], positive: float) -> dict[str, frozenset[str]]:
    """What each user (by key) liked of what exploration showed them: of items that the policy would not have chosen.
    Users who liked nothing of it are left out."""
    likes: dict[str, set[str]] = {}
    for one in decisions:
        chance, _ = logged_choice(one)
        found = [one.shown[at] for at in np.flatnonzero((chance == 0) & (one.rewards >= positive))]
        if found:
            likes.setdefault(one.user, set()).update(found)
    return {user: frozenset(liked) for user, liked in likes.items()}


def compare_shown(slates: Sequence[Slate]) -> tuple[list[Difference], Evidence]:
    """Differences of the order within slates, in pairs over users and over slices, and of the calibration, with
    intervals of 95 %: normal ones, and over resampled users."""
    explored_place = _joined([slate.place[slate.explored] for slate in slates])
    explored_liked = _joined([slate.liked[slate.explored] for slate in slates])
    gamma = position_exponent(explored_place, explored_liked)
    weights = [_weights(slate, gamma) for slate in slates]
    total = _joined(weights)
    evidence = Evidence(
        slates=len(slates),
        impressions=sum(len(slate.place) for slate in slates),
        explored=len(explored_place),
        explored_likes=int(explored_liked.sum()),
        likes=int((total > 0).sum()),
        effective_likes=float(total.sum() ** 2 / (total**2).sum()) if total.any() else 0.0,
        position_exponent=gamma,
    )
    found = [_order(among, slates, weights) for among in (EVERYBODY, KNOWN_USERS, NEW_USERS, NEW_ITEMS)]
    return [one for one in (*found, _calibration(slates)) if one is not None], evidence


def position_exponent(place: Int64, liked: Bool) -> float:
    """gamma in [0, MAX_EXPONENT] of the largest likelihood of likes that come at the rate a k^-gamma at place k (n,),
    counted as Poisson; 0 if nothing was liked."""
    if not np.any(liked):
        return 0.0
    logs, wanted = np.log(place), float(np.log(place[liked]).sum())

    def loss(gamma: float) -> float:  # with a = likes / sum k^-gamma, the best for that gamma
        return gamma * wanted + float(liked.sum()) * float(np.log(np.exp(-gamma * logs).sum()))

    found = float(minimize_scalar(loss, bounds=(0.0, MAX_EXPONENT), method="bounded").x)
    return found if loss(found) < loss(0.0) else 0.0


def outscored(scores: Float64, others: Float64) -> Float64:
    """s_i(m) of every item, (s,): of its scores and weights u, (s,), two or more."""
    others = np.where(np.eye(len(scores), dtype=np.bool_), 0.0, others)
    lower = 0.5 * (1 + np.sign(scores[:, None] - scores))
    found: Float64 = (lower * others).sum(axis=1) / others.sum(axis=1)
    return found


def _weights(slate: Slate, gamma: float) -> Float64:
    return np.where(slate.liked, _correction(slate) * slate.place**gamma, 0.0)


def _correction(slate: Slate) -> Float64:
    return np.minimum(1 / slate.probability, MAX_CORRECTION)


def _is_among(slate: Slate, among: str) -> Bool | bool:
    parts: dict[str, Bool | bool] = {
        EVERYBODY: True,
        KNOWN_USERS: not slate.stranger,
        NEW_USERS: slate.stranger,
        NEW_ITEMS: slate.new,
    }
    return parts[among]


def _order(among: str, slates: Sequence[Slate], weights: Sequence[Float64]) -> Difference | None:
    """A(m) of both, with users as the unit: not a mean of slates, which would take the weights out of all that have one
    like."""
    sums: dict[str, Float64] = {}
    for slate, weight in zip(slates, weights, strict=True):
        likes = weight * _is_among(slate, among)
        if likes.any() and len(likes) > 1:
            others = _correction(slate)
            earned = [float(likes @ outscored(scores, others)) for scores in (slate.release, slate.champion)]
            sums[slate.user] = sums.get(slate.user, np.zeros(3)) + np.array([*earned, likes.sum()])
    if not sums:
        return None
    ours, theirs, liked = np.array([*sums.values()]).T
    release, champion = ratio(ours, liked), ratio(theirs, liked)
    bounds = interval(paired_difference(release, champion), 0.95)
    return Difference(
        metric=SLATES,
        against=CHAMPION,
        among=among,
        users=len(sums),
        release=release.value,
        other=champion.value,
        low=bounds.low,
        high=bounds.high,
    )


def _calibration(slates: Sequence[Slate]) -> Difference | None:
    """Of all impressions of which nothing can come any more. The interval is of percentiles over resampled users."""
    over = [slate for slate in slates if slate.resolved]
    if not over:
        return None
    names = {user: number for number, user in enumerate(dict.fromkeys(slate.user for slate in over))}
    user = np.repeat([names[slate.user] for slate in over], [len(slate.place) for slate in over])
    reward = _joined([slate.reward for slate in over])
    ours, theirs = _joined([slate.release for slate in over]), _joined([slate.champion for slate in over])

    def gain(times: Float64) -> float:
        return ece(theirs, reward, weights=times[user]) - ece(ours, reward, weights=times[user])

    rng = np.random.default_rng(0)
    drawn = [
        gain(np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64))
        for _ in range(_RESAMPLES if len(names) > 1 else 0)
    ]
    return Difference(
        metric=CALIBRATION,
        against=CHAMPION,
        among=EVERYBODY,
        users=len(names),
        release=1 - ece(ours, reward),
        other=1 - ece(theirs, reward),
        low=float(np.percentile(drawn, _TAIL)) if drawn else None,
        high=float(np.percentile(drawn, 100 - _TAIL)) if drawn else None,
    )


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)
