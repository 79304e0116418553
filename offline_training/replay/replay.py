"""Logged requests through the real pipeline of a candidate, as of their moments; and what it would have earned.

What is estimated is the candidate's value in the states that the log was in: with the parameters that were learnt from
what was shown, and users who had seen what they were shown. A candidate that learns would have learnt from its own.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment
from feature_store.home import Home
from feature_store.sums import REWARD
from offline_training.experiment.impressions import RewardedDecision, rewarded_decisions
from offline_training.experiment.statistics import Interval, Ratio, paired_difference
from offline_training.off_policy.estimators import ESTIMATORS, OffPolicyEvaluation, evaluate
from offline_training.off_policy.intervals import clustered, skewed_interval
from offline_training.off_policy.slate_log import SlateLog
from offline_training.progress import Progress, section
from offline_training.replay.candidate import Candidate, as_served
from offline_training.replay.moments import TWICE, Logged, Moment, Past, logged_decisions
from offline_training.replay.slates import SAME, SlateLogBuilder, chances_of
from online_serving.pipeline.explore import exploration
from online_serving.pipeline.features import candidate_features, encode_user, nearness
from online_serving.pipeline.pipeline import Pipeline, Weighed
from online_serving.pipeline.request import Request
from online_serving.settings import ServingSettings
from online_serving.treatments import settings_of
from streaming.bandit.exploration import Exploration
from streaming.lake_files import event_logs
from streaming.settings import BanditSettings, RewardSettings

MOST_DECISIONS = 20_000  # a few milliseconds each; more are thinned evenly over time
CHECKED = 300  # decisions that are also replayed through the policy that made them


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """How well the replay knows what was known: the policy that made the log, replayed with the present settings."""

    slots: int
    equal: float  # share of the slots whose logged probability comes out again
    mean_difference: float


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate would have earned on a stretch of the log. Values: reward per impression."""

    candidate: str
    variant: str | None  # whose decisions were replayed; None: all
    first: int  # ms since the epoch
    last: int
    left_out: dict[str, int]  # decisions by reason
    thinned_from: int  # decisions that there were
    logged: Interval  # what the log earned
    evaluation: OffPolicyEvaluation
    difference: Interval | None  # candidate minus log, paired by user; None: refused
    reproduced: Reproduction

    @property
    def refusal(self) -> str | None:
        """Why no value can be read, None: one can."""
        return self.evaluation.refusal


class Stretch(NamedTuple):
    """Which part of the log: times in ms since the epoch, `until` exclusive; None: to its ends, of all variants."""

    since: int | None = None
    until: int | None = None
    variant: str | None = None


class Serving(NamedTuple):
    """The present settings, which the log is taken to be made with."""

    serving: ServingSettings
    bandit: BanditSettings
    rewards: RewardSettings
    experiments: Mapping[str, Experiment]  # by name: what the log's variants changed
    shown_kept: int


Watch = Callable[[Moment, Weighed], None]


def replay(
    home: Home,
    settings: Serving,
    candidate: Candidate,
    stretch: Stretch,
    progress: Progress,
    watch: Watch | None = None,
    most: int = MOST_DECISIONS,
) -> Replay:
    """Replays the candidate over a stretch of the log in the lake. watch: told of each moment and what it came to.

    Raises InvalidInput if the stretch holds no decision that can be replayed, or a logged number that is impossible.
    """
    progress(0.0, "reading the log")
    logs = event_logs(home.lake)
    everything = rewarded_decisions(home.lake, logs, settings.rewards)
    wanted = [outcome for outcome in everything if _within(outcome, stretch)]
    if not wanted:
        raise InvalidInput(f"The log holds no decision {_words(stretch)}. It has {len(everything):,} in all.")
    kept = [wanted[n] for n in np.unique(np.linspace(0, len(wanted) - 1, most).astype(np.int64)).tolist()]
    decisions, again = logged_decisions(home.lake, logs, {outcome.id: outcome for outcome in kept})
    reproduced = _reproduced(home, settings, decisions, everything, section(progress, 0.1, 0.3))
    past = Past(home, settings.rewards, settings.shown_kept)
    past.left_out.update({TWICE: again} if again else {})
    builder = SlateLogBuilder(partial(logging_exploration, settings))
    namespace = None if candidate.release is None else _namespace(home, candidate.release)
    report = section(progress, 0.3, 0.9)
    for number, moment in enumerate(past.moments(decisions, everything, namespace)):
        if number % 100 == 0:
            report(number / len(decisions), f"replaying {len(decisions):,} decisions")
        weighed = weigh(candidate, moment)
        if watch is not None:
            watch(moment, weighed)
        builder.add(moment, weighed)
    progress(0.9, "estimating")
    log = builder.log(past.left_out)
    ends, within = (kept[0].time, kept[-1].time), (settings.rewards.minimum, settings.rewards.maximum)
    return _result(candidate, stretch, log, within, past.left_out, len(wanted), ends, reproduced)


def weigh(candidate: Candidate, moment: Moment) -> Weighed:
    """What the candidate would have drawn a slate from at a moment, and how."""
    decision, snapshot, table = moment.decision, moment.snapshot, moment.table
    request = Request(max(1, decision.shown), exclude=candidate.exclude, surface=decision.surface, time=decision.time)
    user = encode_user(snapshot, moment.user, request)

    def predict(items: Int64) -> Float64:
        if candidate.by_popularity:
            earned = np.maximum(table.items[items, REWARD] / table.trial_weight, 0.0)
            found: Float64 = earned / max(1.0, float(earned.max(initial=0.0)))
            return found
        if not candidate.serving.ranker:
            return nearness(snapshot, user, items)
        return snapshot.towers.predict(candidate_features(snapshot, user, items)).astype(np.float64)

    pipeline = Pipeline(candidate.serving, candidate.bandit)
    return pipeline.weigh(snapshot, table, request, user, moment.user.shown, predict)


def logging_exploration(settings: Serving, variant: str, surface: str) -> Exploration:
    """How the policy of a logged variant fills slots, by the present settings; of a variant that is no more, as these
    say for everybody."""
    _, bandit = settings_of(variant, settings.experiments, settings.serving, settings.bandit) or (None, settings.bandit)
    return exploration(bandit, surface)


def _reproduced(
    home: Home,
    settings: Serving,
    decisions: Sequence[Logged],
    everything: Sequence[RewardedDecision],
    progress: Progress,
) -> Reproduction:
    """Replays some of the decisions through the policy that made them."""
    some = [decisions[n] for n in np.unique(np.linspace(0, len(decisions) - 1, CHECKED).astype(np.int64)).tolist()]
    past, gaps = Past(home, settings.rewards, settings.shown_kept), []
    for number, moment in enumerate(past.moments(some, everything, None)):
        progress(number / len(some), "replaying the policy that made the log")
        made_with = settings_of(moment.decision.variant, settings.experiments, settings.serving, settings.bandit)
        if made_with is not None and moment.decision.shown:
            serving, bandit = made_with
            weighed = weigh(as_served(moment.decision.variant, bandit, serving), moment)
            chances, slate = chances_of(moment, weighed)
            again = np.where(slate >= 0, chances[np.arange(len(slate)), slate], 0.0)
            gaps.append(np.abs(again - moment.outcome.probabilities))
    gap = np.concatenate(gaps) if gaps else np.zeros(0)
    return Reproduction(
        slots=len(gap),
        equal=float(np.mean(gap <= SAME)) if len(gap) else 0.0,
        mean_difference=float(gap.mean()) if len(gap) else 0.0,
    )


def _result(
    candidate: Candidate,
    stretch: Stretch,
    log: SlateLog,
    reward_range: tuple[float, float],
    left_out: dict[str, int],
    total: int,
    ends: tuple[int, int],
    reproduced: Reproduction,
) -> Replay:
    evaluation = evaluate(log, reward_range=reward_range)
    earned = on_policy(log)
    estimate, _ = ESTIMATORS[evaluation.headline](log)
    change = skewed_interval(paired_difference(estimate, earned), 0.95)
    return Replay(
        candidate=candidate.name,
        variant=stretch.variant,
        first=ends[0],
        last=ends[1],
        left_out=dict(left_out),
        thinned_from=total,
        logged=skewed_interval(earned, 0.95),
        evaluation=evaluation,
        difference=None if evaluation.refusal else change,
        reproduced=reproduced,
    )


def on_policy(log: SlateLog) -> Ratio:
    """What the log itself earned per impression."""
    shown = log.present.sum(axis=1).astype(np.float64)
    earned = np.where(log.present, log.rewards, 0.0).sum(axis=1)
    value = float(earned.sum() / shown.sum())
    return clustered(value, (earned - value * shown) / shown.sum(), log.users)


def _namespace(home: Home, release: str) -> str:
    """The first namespace of a release, which has the most of the log before it. Raises InvalidInput if it has none."""
    found = [path for path in home.namespaces.glob(f"{release}-*") if path.is_dir()]
    if not found:
        there = sorted({path.name.rpartition("-")[0] for path in home.namespaces.glob("[!.]*-*")})
        raise InvalidInput(f"Release {release!r} has no namespace in {home.namespaces}. There are: {', '.join(there)}.")
    return min(found, key=lambda path: int(path.name.rpartition("-")[2])).name


def _within(outcome: RewardedDecision, stretch: Stretch) -> bool:
    return (
        (stretch.since is None or outcome.time >= stretch.since)
        and (stretch.until is None or outcome.time < stretch.until)
        and (stretch.variant is None or outcome.variant == stretch.variant)
    )


def _words(stretch: Stretch) -> str:
    parts = [
        f"of variant {stretch.variant!r}" if stretch.variant else "",
        f"from {stretch.since} ms on" if stretch.since is not None else "",
        f"before {stretch.until} ms" if stretch.until is not None else "",
    ]
    return " ".join(part for part in parts if part) or "at all"
