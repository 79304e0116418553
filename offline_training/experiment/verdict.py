"""What an experiment says, in one sentence, and what to do about it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from feature_store.contracts.experiments import Plan
from offline_training.experiment.codiverted import Part
from offline_training.experiment.sample_ratio import SampleRatioCheck
from offline_training.experiment.statistics import Interval

if TYPE_CHECKING:
    from offline_training.experiment.analysis import Effect, MetricReport


class Answer(StrEnum):
    """What kind of verdict it is."""

    BROKEN = "broken"  # the users are not split as planned: nothing can be said
    HARM = "harm"  # a guardrail got worse
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no_difference"  # none worth knowing of
    OPEN = "open"  # not known yet


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence."""

    answer: Answer
    variant: str | None  # that the sentence is about
    sentence: str


def judge(plan: Plan, reports: "Sequence[MetricReport]", checked: SampleRatioCheck, users: int) -> Verdict:
    """The first that holds: the split is broken or a variant met nobody; a guardrail is worse; a variant is better, the
    best of them; all are worse; no difference worth knowing of; open. Everything by intervals that hold at any look."""
    absent = [variant.name for variant in plan.variants if not checked.observed[variant.name]]
    if checked.broken or (absent and users >= 10 * len(plan.variants)):
        why = "; ".join(checked.causes[:2]) if checked.causes else f"nobody met {', '.join(absent)}"
        return Verdict(
            answer=Answer.BROKEN,
            variant=None,
            sentence=f"No verdict: the users are not split as planned ({_split(checked)}). Likely: {why}.",
        )
    alpha = 1 - plan.confidence
    for report in reports:
        if report.role != "guardrail":
            continue
        for effect in report.effects:
            if effect.p_value < alpha and _is_gain(effect, report) is False:
                return Verdict(
                    answer=Answer.HARM,
                    variant=effect.variant,
                    sentence=f"Stop {effect.variant}: {report.words} got worse, by {_percent(effect.always_valid)} "
                    f"against {plan.control}.",
                )
    primary = next((one for one in reports if one.role == "primary"), None)
    if primary is None or not primary.effects:
        return Verdict(
            answer=Answer.OPEN, variant=None, sentence=f"Nothing to compare yet: {plan.metric} was not measured."
        )
    return _of_primary(plan, primary, users)


def _of_primary(plan: Plan, primary: "MetricReport", users: int) -> Verdict:
    alpha, sign = 1 - plan.confidence, 1 if primary.higher_is_better else -1
    certain = [one for one in primary.effects if one.p_value < alpha]
    best = max(primary.effects, key=lambda one: sign * one.always_valid.value)
    by, what = _percent(best.always_valid), f"{primary.words}, against {plan.control}"
    if best in certain and _is_gain(best, primary):
        rest = [one.variant for one in certain if one is not best and _is_gain(one, primary)]
        also = f" ({', '.join(rest)} too, by less)" if rest else ""
        return Verdict(
            answer=Answer.BETTER, variant=best.variant, sentence=f"{best.variant} is better{also}: {by} {what}."
        )
    if all(one in certain and not _is_gain(one, primary) for one in primary.effects):
        return Verdict(
            answer=Answer.WORSE,
            variant=best.variant,
            sentence=f"Keep {plan.control}: {best.variant} is worse, {by} {what}.",
        )
    bounds = [(one.always_valid.low, one.always_valid.high) for one in primary.effects]
    if all(low is not None and high is not None and max(-low, high) < plan.minimum_effect for low, high in bounds):
        return Verdict(
            answer=Answer.NO_DIFFERENCE,
            variant=None,
            sentence=f"No difference worth knowing of: every variant is within {plan.minimum_effect:.1%} of "
            f"{plan.control} in {primary.words}.",
        )
    left = f"{users:,} of {plan.planned_users:,} planned users" if users < plan.planned_users else f"{users:,} users"
    return Verdict(
        answer=Answer.OPEN, variant=None, sentence=f"Not known yet, after {left}: {best.variant} is at {by} {what}."
    )


def judge_parts(parts: Sequence[Part]) -> Verdict:
    """Of an experiment that parted the catalogue, at one planned look: whether a variant's part was found more of."""
    control, *others = parts
    best = max(others, key=lambda one: one.discoverable.value)
    sizes = f"{best.discoverable.value:.1%} of its items against {control.discoverable.value:.1%}"
    by = "" if best.change is None else f", {_percent(best.change)}"
    if best.change is not None and best.change.excludes_zero:
        more = best.change.value > 0
        words = "lets people find more" if more else "lets people find less"
        return Verdict(
            answer=Answer.BETTER if more else Answer.WORSE,
            variant=best.variant,
            sentence=f"{best.variant} {words} of the catalogue than {control.variant}: {sizes}{by}.",
        )
    return Verdict(
        answer=Answer.OPEN,
        variant=None,
        sentence=f"Not known yet what the variants do to the catalogue: with {best.variant} people found {sizes}{by}.",
    )


def _is_gain(effect: "Effect", report: "MetricReport") -> bool:
    return (effect.always_valid.value > 0) is report.higher_is_better


def _percent(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.1%}"
    return f"{found.value:+.1%} ({found.low:+.1%} to {found.high:+.1%})"


def _split(checked: SampleRatioCheck) -> str:
    return ", ".join(
        f"{name}: {count} where {checked.expected[name]:.0f} were due" for name, count in checked.observed.items()
    )
