"""What the closed loop earned and found out, computed from its log in the lake alone."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from feature_store.arrays import Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Plan, variant_in
from feature_store.lake_path import LakePath
from offline_training.experiment.impressions import RewardedDecision, rewarded_decisions
from offline_training.experiment.statistics import PER, Comparison, Difference, Visits, compare
from offline_training.off_policy.estimators import OffPolicyEvaluation, evaluate
from offline_training.off_policy.greedy_policy import LoggedSlate, logged_choice, slate_log
from online_serving.treatments import bandit_of
from streaming.bandit.exploration import Exploration
from streaming.settings import BanditMode, BanditSettings, RewardSettings

THRESHOLDS = (1, 3, 5)  # positive interactions from which on an item counts as discovered
_CURVE_POINTS = 60
_ROLLOUTS = 100


class ExploredShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a variant's impressions was exploration."""

    variant: str
    explored: float  # share of impressions whose item was not the best by mean of those left
    configured: float  # mean chance that a slot explores; exploring may hit the best item, so `explored` is lower


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """DC@N (Su et al., WSDM 2024): new items that reached N positive interactions within one variant."""

    variant: str
    impressions: int
    impressions_of_new: int
    discovered: dict[int, int]  # by N
    per_thousand: dict[int, float]  # the same per 1,000 impressions; arms differ in size
    at_equal_impressions: dict[int, int]  # the same within as many impressions as the smallest arm had


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one variant as it developed."""

    variant: str
    x: list[float]
    y: list[float]


class LoopMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the log tells."""

    decisions: int
    impressions: int
    reward: float
    seconds: float  # from the first decision to the last
    comparison: Comparison
    exploring: Difference | None  # the exploring variant against the greedy one; None: one of them nobody met
    exploration: list[ExploredShare]
    new_items: int
    discovery: list[Discovery]
    cumulative_reward: list[Curve]  # reward per 1,000 impressions so far, over the variant's decisions
    reward_over_time: list[Curve]  # reward per 1,000 impressions within stretches of all decisions
    discovery_curves: list[Curve]  # DC@1 over the variant's impressions
    explorer: str | None  # the variant whose log the greedy policy was evaluated on
    greedy: str | None  # the variant that ran the greedy policy
    off_policy: OffPolicyEvaluation | None  # reward per impression


def loop_metrics(
    lake: LakePath,
    logs: Sequence[str],
    experiment: Plan,
    control: str,
    rewards: RewardSettings,
    bandit: BanditSettings,
    new_items: Collection[str],
    planned_users: int,
    seed: int,
    people: Mapping[str, str] | None = None,
    windows: int = 20,
) -> LoopMetrics:
    """Reads the logs (by id) from the lake and computes every figure.

    new_items: those that entered the catalogue during the experiment. planned_users: see
    experiment.confidence_sequence. seed: of the rollouts behind the item-position estimators. people: user key ->
    person, where a person is a user of several variants, and nobody else counts; None: all users are strangers. Raises
    InvalidInput for a log in which nobody is in the experiment.
    """
    decisions = [
        replace(decision, variant=variant)
        for decision in rewarded_decisions(lake, logs, rewards)
        if (variant := variant_in(decision.variant, experiment.name)) is not None
        and (people is None or decision.user in people)
    ]
    if not decisions:
        raise InvalidInput(f"The lake {lake} has no decision on users of experiment {experiment.name!r}. Did it start?")
    visits = _visits(decisions, people)
    shares, modes = experiment.shares(), {one.name: bandit_of(one, bandit).mode for one in experiment.variants}
    of = {variant.name: [d for d in decisions if d.variant == variant.name] for variant in experiment.variants}
    met = {name: rows for name, rows in of.items() if rows}
    explorer, greedy = (_variant(modes, mode, met) for mode in (BanditMode.EXPLORE, BanditMode.GREEDY))
    exploring = None
    if explorer is not None and greedy is not None:
        against_greedy = compare(visits, shares, greedy, planned_users).differences
        exploring = next(change for change in against_greedy if change.variant == explorer)
    return LoopMetrics(
        decisions=len(decisions),
        impressions=sum(len(d.shown) for d in decisions),
        reward=float(sum(d.rewards.sum() for d in decisions)),
        seconds=(decisions[-1].time - decisions[0].time) / 1000,
        comparison=compare(visits, shares, control, planned_users),
        exploring=exploring,
        exploration=[explored_share(name, rows, _configured(modes[name], rows, bandit)) for name, rows in met.items()],
        new_items=len(set(new_items)),
        discovery=discovery(met, new_items, rewards.positive),
        cumulative_reward=[cumulative_reward(name, rows) for name, rows in met.items()],
        reward_over_time=reward_over_time(met, windows),
        discovery_curves=[discovery_curve(name, rows, new_items, rewards.positive) for name, rows in met.items()],
        explorer=explorer,
        greedy=greedy,
        off_policy=None if explorer is None else greedy_value(met[explorer], bandit, seed),
    )


def explored_share(variant: str, decisions: Sequence[RewardedDecision], configured: float) -> ExploredShare:
    """Counts impressions whose item did not have the highest mean of those left; a tie for the highest is no
    exploration.
    """
    explored = total = 0
    for decision in decisions:
        chance, _ = logged_choice(decision)
        explored += int(np.count_nonzero(chance == 0))
        total += len(decision.shown)
    return ExploredShare(variant=variant, explored=explored / max(total, 1), configured=configured)


def discovery(arms: dict[str, list[RewardedDecision]], new_items: Collection[str], positive: float) -> list[Discovery]:
    """DC@N of each arm. A positive interaction is a reward of at least `positive` on a shown item."""
    smallest = min((sum(len(d.shown) for d in rows) for rows in arms.values()), default=0)
    found = []
    for name, rows in arms.items():
        impressions = sum(len(d.shown) for d in rows)
        counts, seen = _positives(rows, new_items, positive)
        equal, _ = _positives(_thinned_to(rows, smallest / max(impressions, 1)), new_items, positive)
        discovered = {n: _reached(counts, n) for n in THRESHOLDS}
        found.append(
            Discovery(
                variant=name,
                impressions=impressions,
                impressions_of_new=seen,
                discovered=discovered,
                per_thousand={n: count / max(impressions, 1) * PER for n, count in discovered.items()},
                at_equal_impressions={n: _reached(equal, n) for n in THRESHOLDS},
            )
        )
    return found


def discovery_curve(
    variant: str, decisions: Sequence[RewardedDecision], new_items: Collection[str], positive: float
) -> Curve:
    """New items with at least one positive interaction, over the variant's impressions."""
    known = frozenset(new_items)
    reached: set[str] = set()
    impressions, x, y = 0, [0.0], [0.0]
    for decision in decisions:
        impressions += len(decision.shown)
        earned = zip(decision.shown, decision.rewards, strict=True)
        reached.update(item for item, r in earned if r >= positive and item in known)
        x.append(float(impressions))
        y.append(float(len(reached)))
    return _thinned(variant, x, y)


def cumulative_reward(variant: str, decisions: Sequence[RewardedDecision]) -> Curve:
    """Reward per 1,000 impressions so far, after each of the variant's decisions."""
    shown = np.cumsum([len(d.shown) for d in decisions])
    earned = np.cumsum([d.rewards.sum() for d in decisions])
    per_thousand = np.divide(earned * PER, shown, out=np.zeros(len(shown)), where=shown > 0)
    return _thinned(variant, np.arange(1.0, len(shown) + 1).tolist(), per_thousand.tolist())


def reward_over_time(arms: dict[str, list[RewardedDecision]], windows: int) -> list[Curve]:
    """Reward per 1,000 impressions within windows of equally many decisions of all variants together, in order of time;
    x is a window's middle, in decisions. Windows in which a variant showed nothing are left out of its curve."""
    times = np.array([decision.time for rows in arms.values() for decision in rows], dtype=np.int64)
    turn = np.empty(len(times), dtype=np.int64)
    turn[np.argsort(times, kind="stable")] = np.arange(len(times))
    window = iter(turn * windows // max(len(times), 1))
    curves = []
    for name, rows in arms.items():
        own = np.array([next(window) for _ in rows], dtype=np.int64)
        shown = np.bincount(own, weights=[len(d.shown) for d in rows], minlength=windows)
        earned = np.bincount(own, weights=[d.rewards.sum() for d in rows], minlength=windows)
        used = np.flatnonzero(shown)
        x = ((used + 0.5) * len(times) / windows).tolist()
        curves.append(Curve(variant=name, x=x, y=(earned[used] / shown[used] * PER).tolist()))
    return curves


def greedy_value(decisions: Sequence[RewardedDecision], bandit: BanditSettings, seed: int) -> OffPolicyEvaluation:
    """What the greedy policy would have earned per impression, from an exploring variant's log.

    It answers for the states in which the exploring variant's users were: which items they had seen already is part of
    them.
    """
    slates = [
        LoggedSlate(
            d.user, d.mean, d.bonus, d.probabilities, d.rewards,
            Exploration(bandit.explore_top_k, bandit.share_on(d.surface)), d.greedy, d.greedy_mean,
        )
        for d in decisions
        if d.shown
    ]  # fmt: skip
    return evaluate(slate_log(slates, _ROLLOUTS, np.random.default_rng(seed)))


def _visits(decisions: Sequence[RewardedDecision], people: Mapping[str, str] | None) -> Visits:
    users = [decision.user for decision in decisions]
    return Visits(
        users=_codes(users),
        variants=np.array([d.variant for d in decisions], dtype=np.str_),
        impressions=np.array([len(d.shown) for d in decisions], dtype=np.float64),
        rewards=np.array([d.rewards.sum() for d in decisions], dtype=np.float64),
        people=None if people is None else _codes([people[user] for user in users]),
    )


def _codes(names: Sequence[str]) -> Int64:
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([codes[name] for name in names], dtype=np.int64)


def _variant(modes: Mapping[str, BanditMode], mode: BanditMode, met: Collection[str]) -> str | None:
    return next((name for name, own in modes.items() if own is mode and name in met), None)


def _configured(mode: BanditMode, decisions: Sequence[RewardedDecision], bandit: BanditSettings) -> float:
    if mode is not BanditMode.EXPLORE:
        return 0.0
    slots = sum(len(d.shown) for d in decisions)
    return sum(bandit.share_on(d.surface) * len(d.shown) for d in decisions) / max(slots, 1)


def _positives(
    decisions: Sequence[RewardedDecision], new_items: Collection[str], positive: float
) -> tuple[Counter[str], int]:
    """Positive interactions per new item, and impressions of new items."""
    known = frozenset(new_items)
    new = [
        (item, earned)
        for decision in decisions
        for item, earned in zip(decision.shown, decision.rewards, strict=True)
        if item in known
    ]
    return Counter(item for item, earned in new if earned >= positive), len(new)


def _thinned_to(decisions: Sequence[RewardedDecision], share: float) -> list[RewardedDecision]:
    """A share of the decisions, evenly over the experiment."""
    picks = np.linspace(0, len(decisions) - 1, round(share * len(decisions))).round().astype(np.int64)
    return [decisions[pick] for pick in picks]


def _reached(counts: Counter[str], threshold: int) -> int:
    return sum(count >= threshold for count in counts.values())


def _thinned(variant: str, x: list[float], y: list[float]) -> Curve:
    """At most _CURVE_POINTS points of a curve, the last one among them."""
    picks = np.unique(np.linspace(0, len(x) - 1, min(_CURVE_POINTS, len(x))).round().astype(np.int64))
    return Curve(variant=variant, x=[x[i] for i in picks], y=[y[i] for i in picks])
