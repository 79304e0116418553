"""From what users did to a verdict in one sentence and the numbers behind it. Pure: no files, no clock."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Bool, Float64
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Plan
from offline_training.experiment import sample_ratio
from offline_training.experiment.adjusted import always_valid_p, benjamini_hochberg, cuped, holm, relative, shrunk
from offline_training.experiment.codiverted import Part
from offline_training.experiment.corpus import CorpusFigure, corpus
from offline_training.experiment.metrics import METRICS, Metric
from offline_training.experiment.outcomes import Outcomes, slates_before
from offline_training.experiment.sample_ratio import SampleRatioCheck
from offline_training.experiment.statistics import Interval, Ratio, always_valid, interval, ratio
from offline_training.experiment.verdict import Answer, Verdict, judge, judge_parts

_LOOKS = 20
_SLATES_BEFORE = (0, 1, 3, 7, 15, 31)  # where the stretches of a user's time in an experiment begin
_LEAST_USERS = 20  # of each variant in a stretch


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A metric in a variant."""

    variant: str
    users: int
    value: Interval  # for one planned look


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A variant against the control, as a share of the control: 0.02 is 2 % more."""

    variant: str
    planned: Interval  # holds for one look, planned beforehand
    always_valid: Interval  # holds for all looks together
    p_value: float  # valid at all looks; Holm over the variants for the metric that decides and over the guardrails,
    # Benjamini-Hochberg over everything else
    variance_removed: float  # by what the users did before


class MetricReport(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of all variants."""

    name: str
    words: str
    higher_is_better: bool
    role: str  # primary, guardrail or other
    figures: list[Figure]
    effects: list[Effect]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of a metric at a time."""

    time: int  # ms since the epoch
    metric: str
    variant: str
    users: int
    value: float
    effect: Interval | None  # always valid; None: of the control, or too few users


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The metric that decides among users who were alike before they met a variant."""

    name: str
    variant: str
    users: int
    effect: float
    shrunk: Interval  # drawn towards the mean of the slices


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """The metric that decides while users were as new to their variant: after so many slates of it."""

    first: int  # slate, from 1
    last: int | None  # None: all later ones
    variant: str
    users: int  # of the variant and the control
    effect: Interval  # for one look


class ExperimentReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of an experiment at a time."""

    name: str
    hypothesis: str
    control: str
    changes: dict[str, list[str]]  # by variant, what it changes
    time: int  # of the last decision, ms since the epoch
    decisions: int
    users: int
    planned_users: int
    verdict: Verdict
    metrics: list[MetricReport]
    looks: list[Look]
    slices: list[Slice]
    novelty: list[Stretch]
    corpus: list[CorpusFigure]
    sample_ratio: SampleRatioCheck
    left_out: dict[str, int]
    confidence: float
    parts: list[Part] = []  # where the catalogue was parted, too


class _Arms(NamedTuple):
    """What the variants' users did: sums by user, and who is in which."""

    sums: Mapping[str, Float64]  # times what each user counts
    weights: Float64  # (u,) what each user counts: the planned chance of the variant over the one that it was met with
    rows: Mapping[str, Bool]  # by variant
    covariates: Float64  # (u, k) from before; k may be 0


def analyse(plan: Plan, found: Outcomes) -> ExperimentReport:
    """Judges what was found by the plan. Raises InvalidInput if nobody met the control."""
    shares = plan.shares()
    arms = _arms(plan, found, found.sums())
    if plan.control not in arms.rows:
        raise InvalidInput(
            f"Nobody met the control {plan.control!r} of experiment {plan.name!r}; users by variant: "
            f"{ {name: int(rows.sum()) for name, rows in arms.rows.items()} }. Is it served? See `matchloop status`."
        )
    reports = _adjusted_for_many(
        [_report(plan, name, metric, arms) for name, metric in METRICS.items() if _measured(metric, arms)]
    )
    first = np.full(len(found.users), np.iinfo(np.int64).max)
    np.minimum.at(first, found.user, found.time)
    order = np.argsort(first, kind="stable")
    arrivals = found.variant[order]
    latency = next((one for one in reports if one.name == "latency_ms"), None)
    checked = sample_ratio.check(
        arrivals,
        shares,
        plan.planned_users,
        found.left_out,
        {} if latency is None else {one.variant: one.value.value for one in latency.figures},
        None if found.chances is None else found.chances[order],
    )
    users = len(found.users)
    return ExperimentReport(
        name=plan.name,
        hypothesis=plan.hypothesis,
        control=plan.control,
        changes={variant.name: variant.changes() for variant in plan.variants},
        time=int(found.time.max()),
        decisions=len(found.user),
        users=users,
        planned_users=plan.planned_users,
        verdict=judge(plan, reports, checked, users),
        metrics=reports,
        looks=_looks(plan, found),
        slices=_slices(plan, arms),
        novelty=_novelty(plan, found),
        corpus=corpus(found),
        sample_ratio=checked,
        left_out=dict(found.left_out),
        confidence=plan.confidence,
    )


def with_parts(report: ExperimentReport, found: list[Part]) -> ExperimentReport:
    """The report of an experiment that parted the catalogue: its verdict is about the items, unless the split is broken
    or a guardrail got worse."""
    verdict = report.verdict
    if verdict.answer not in (Answer.BROKEN, Answer.HARM):
        verdict = judge_parts(found)
    return msgspec.structs.replace(report, parts=found, verdict=verdict)


def estimates(metric: Metric, arms: Mapping[str, Mapping[str, Float64]]) -> dict[str, Ratio]:
    """The metric by variant, from sums by user (u,); variants without a denominator are left out."""
    return {
        name: ratio(sums[metric.numerator], sums[metric.denominator])
        for name, sums in arms.items()
        if sums[metric.denominator].sum() > 0
    }


def weights_of(plan: Plan, found: Outcomes) -> Float64:
    """(u,) what users count where ramps dealt them with different chances: inverse propensity weights, under which each
    variant's users are as all users are, whenever they came in."""
    if found.chances is None:
        return np.ones(len(found.users))
    shares = np.array(list(plan.shares().values()))[found.variant]
    weights: Float64 = shares / found.chances[np.arange(len(found.users)), found.variant]
    return weights


def weighted_arms(plan: Plan, found: Outcomes) -> dict[str, dict[str, Float64]]:
    """By variant that somebody met, the sums of its users, times what they count."""
    arms = _arms(plan, found, found.sums())
    return {name: {key: column[rows] for key, column in arms.sums.items()} for name, rows in arms.rows.items()}


def _arms(plan: Plan, found: Outcomes, sums: Mapping[str, Float64]) -> _Arms:
    weights = weights_of(plan, found)
    sums = {name: column * weights for name, column in sums.items()}
    here = sums["users"] > 0
    rows = {name: (found.variant == k) & here for k, name in enumerate(found.variants)}
    before = np.stack([found.before[name] for name in ("reward", "impressions", "decisions")], axis=1)
    known = before[:, 2] > 0
    covariates = np.column_stack([before, known]) if known.any() else before[:, :0]
    names = [variant.name for variant in plan.variants]
    return _Arms(sums, weights, {name: rows[name] for name in names if rows[name].any()}, covariates)


def _measured(metric: Metric, arms: _Arms) -> bool:
    return bool(arms.sums[metric.denominator].sum() > 0)


def _ratios(metric: Metric, arms: _Arms) -> dict[str, Ratio]:
    return estimates(
        metric, {name: {key: column[rows] for key, column in arms.sums.items()} for name, rows in arms.rows.items()}
    )


def _report(plan: Plan, name: str, metric: Metric, arms: _Arms) -> MetricReport:
    ratios = _ratios(metric, arms)
    effects = [] if plan.control not in ratios else _effects(plan, ratios, arms)
    return MetricReport(
        name=name,
        words=metric.words,
        higher_is_better=metric.higher_is_better,
        role="primary" if name == plan.metric else "guardrail" if name in plan.guardrails else "other",
        figures=[
            Figure(
                variant=variant,
                users=len(one.influence),
                value=_times(interval(one, plan.confidence), metric.scale),
            )
            for variant, one in ratios.items()
        ],
        effects=effects,
    )


def _effects(plan: Plan, ratios: Mapping[str, Ratio], arms: _Arms) -> list[Effect]:
    effects = []
    comparisons = max(1, len(plan.variants) - 1)
    confidence = 1 - (1 - plan.confidence) / comparisons  # so that the intervals of all variants hold together
    for name in ratios:
        if name == plan.control or ratios[plan.control].value == 0:
            continue
        pair, removed = {one: ratios[one] for one in (name, plan.control)}, 0.0
        if arms.covariates.shape[1]:
            covariates, weights = ({one: of[arms.rows[one]] for one in pair} for of in (arms.covariates, arms.weights))
            pair, removed = cuped(pair, covariates, weights)
        change = relative(pair[name], pair[plan.control])
        effects.append(
            Effect(
                variant=name,
                planned=interval(change, confidence),
                always_valid=always_valid(change, confidence, plan.planned_users),
                p_value=always_valid_p(change, confidence, plan.planned_users),
                variance_removed=removed,
            )
        )
    return effects


def _adjusted_for_many(reports: list[MetricReport]) -> list[MetricReport]:
    """With p-values that take all effects of the same role into account."""
    adjusted = list(reports)
    for role, adjust in (("primary", holm), ("guardrail", holm), ("other", benjamini_hochberg)):
        places = [(i, j) for i, one in enumerate(reports) if one.role == role for j in range(len(one.effects))]
        p_values = adjust([reports[i].effects[j].p_value for i, j in places])
        for (i, j), p_value in zip(places, p_values, strict=True):
            effects = list(adjusted[i].effects)
            effects[j] = msgspec.structs.replace(effects[j], p_value=p_value)
            adjusted[i] = msgspec.structs.replace(adjusted[i], effects=effects)
    return adjusted


def _looks(plan: Plan, found: Outcomes) -> list[Look]:
    """The metric that decides and the guardrails, as they stood after equal stretches of decisions."""
    times = np.sort(found.time)
    looks = []
    for time in np.unique(times[np.linspace(0, len(times) - 1, _LOOKS + 1).astype(np.int64)[1:]]):
        arms = _arms(plan, found, found.sums(found.time <= time))
        for name in (plan.metric, *plan.guardrails):
            metric = METRICS[name]
            if not _measured(metric, arms):
                continue
            ratios = _ratios(metric, arms)
            effects = {one.variant: one for one in _effects(plan, ratios, arms)} if plan.control in ratios else {}
            looks += [
                Look(
                    time=int(time),
                    metric=name,
                    variant=variant,
                    users=len(one.influence),
                    value=one.value * metric.scale,
                    effect=effects[variant].always_valid if variant in effects else None,
                )
                for variant, one in ratios.items()
            ]
    return looks


def _novelty(plan: Plan, found: Outcomes) -> list[Stretch]:
    """An effect that is large at first and goes is curiosity; one that grows is learning. What users did before is left
    in: the same users are compared with those of other stretches."""
    before, metric = slates_before(found), METRICS[plan.metric]
    confidence = 1 - (1 - plan.confidence) / max(1, len(plan.variants) - 1)
    stretches = []
    for first, after in zip(_SLATES_BEFORE, (*_SLATES_BEFORE[1:], None), strict=True):
        within = (before >= first) & (True if after is None else before < after)
        arms = _arms(plan, found, found.sums(within))
        ratios = {name: one for name, one in _ratios(metric, arms).items() if len(one.influence) >= _LEAST_USERS}
        if plan.control not in ratios or ratios[plan.control].value == 0:
            continue
        stretches += [
            Stretch(
                first=first + 1,
                last=after,
                variant=name,
                users=len(one.influence) + len(ratios[plan.control].influence),
                effect=interval(relative(one, ratios[plan.control]), confidence),
            )
            for name, one in ratios.items()
            if name != plan.control
        ]
    return stretches


def _slices(plan: Plan, arms: _Arms) -> list[Slice]:
    """By how much users did before, which no variant can have changed; nothing if nobody was there before."""
    if not arms.covariates.shape[1]:
        return []
    impressions = arms.covariates[:, 1]
    known = impressions > 0
    middle = float(np.median(impressions[known])) if known.any() else 0.0
    groups = {
        "new": ~known,
        "known, below the median before": known & (impressions <= middle),
        "known, above the median before": impressions > max(middle, 0.0),
    }
    slices = []
    for variant in arms.rows:
        if variant == plan.control:
            continue
        found = []
        for name, members in groups.items():
            part = arms._replace(rows={one: arms.rows[one] & members for one in (variant, plan.control)})
            ratios = _ratios(METRICS[plan.metric], part)
            users = sum(len(one.influence) for one in ratios.values())
            if len(ratios) == 2 and ratios[plan.control].value != 0:
                change = relative(ratios[variant], ratios[plan.control])
                if math.isfinite(change.standard_error) and change.standard_error > 0:
                    found.append((name, users, change))
        if len(found) < 2:
            continue
        drawn = shrunk(
            np.array([change.value for *_, change in found]), np.array([change.standard_error for *_, change in found])
        )
        for (name, users, change), effect, error in zip(found, drawn.effects, drawn.errors, strict=True):
            approximate = Ratio(float(effect), float(error), change.degrees, change.influence)
            slices.append(
                Slice(
                    name=name,
                    variant=variant,
                    users=users,
                    effect=change.value,
                    shrunk=interval(approximate, plan.confidence),
                )
            )
    return slices


def _times(found: Interval, scale: float) -> Interval:
    return Interval(
        value=found.value * scale,
        low=None if found.low is None else found.low * scale,
        high=None if found.high is None else found.high * scale,
    )
