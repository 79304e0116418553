"""The words of a report: figures as text, and what may honestly be said of them."""

import math
from collections.abc import Sequence

from offline_training.experiment.loop_metrics import THRESHOLDS, Discovery
from offline_training.experiment.statistics import PER, Difference, Interval
from offline_training.report.data import Delay, LoopReport

ANSWERS = 2  # sentences of the headline: whether learning paid, what exploring cost and found


def lower_bound(report: LoopReport) -> str:
    """How to read the rewards."""
    return (
        "Rewards are a lower bound: a visitor likes the items to which the real person gave "
        f"{report.positive_value:g} or more after the training data ends, and nothing else. People did not "
        "rate everything they would have liked."
    )


def headline(report: LoopReport) -> list[str]:
    """The answers, then what happened: five sentences."""
    return [
        _whether_learning_paid(report),
        _what_exploring_cost_and_found(report),
        _both_together(report),
        _what_happened(report),
        _how_fast_and_how_sure(report),
    ]


def verdict(change: Difference) -> str:
    """What a difference allows to say. Only the always-valid interval allows a claim without a proviso."""
    direction = "better" if change.planned.value > 0 else "worse"
    if change.always_valid.excludes_zero:
        return f"{direction}, also by the always-valid interval"
    if change.planned.excludes_zero:
        return f"{direction} for a single planned look, not yet by the always-valid interval"
    return "not distinguishable yet"


def agreement(estimate: Interval, measured: Interval) -> str | None:
    """Whether two independent figures fit together; None where an interval is missing."""
    if None in (estimate.low, estimate.high, measured.low, measured.high):
        return None
    halves = [
        (found.high - found.low) / 2
        for found in (estimate, measured)
        if found.high is not None and found.low is not None
    ]
    apart = abs(estimate.value - measured.value) > math.hypot(*halves)
    return "does not fit" if apart else "fits"


def number(value: float) -> str:
    """1234.5 -> 1,235; 12.345 -> 12.3; 0.0123 -> 0.012."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def interval(found: Interval, signed: bool = False) -> str:
    """value (low to high)."""
    sign = "+" if signed and found.value > 0 else ""
    if found.low is None or found.high is None:
        return f"{sign}{found.value:.1f} (too few users for an interval)"
    return f"{sign}{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def milliseconds(value: float | None) -> str:
    """A delay in a unit that suits it."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
    return f"{value / 1000:.1f} s" if value < 120_000 else f"{value / 60_000:.1f} min"


def delay(found: Delay) -> str:
    """p50 and p99, and what is missing from them."""
    if found.unmeasured is not None:
        return f"not measured: {found.unmeasured}"
    if not found.count:
        return f"no sample ({found.open} still open)" if found.open else "no sample"
    still = f", {found.open:,} still open" if found.open else ""
    return f"p50 {milliseconds(found.p50_ms)}, p99 {milliseconds(found.p99_ms)} ({found.count:,} samples{still})"


def per_thousand(found: Interval) -> Interval:
    """From reward per impression."""
    bounds = [None if bound is None else bound * PER for bound in (found.low, found.high)]
    return Interval(value=found.value * PER, low=bounds[0], high=bounds[1])


def _whether_learning_paid(report: LoopReport) -> str:
    change = report.difference(report.loop.greedy)
    control = None if change is None else report.arm(change.control)
    if change is None or control is None:
        return "Whether learning paid cannot be told: no greedy variant and control were both met."
    answer = _by_sign(
        change.planned, "Learning paid", "Learning did not pay", "Whether learning paid cannot be told from this run"
    )
    return (
        f"{answer}: {change.variant}, which orders by what was learnt online, earned {_more(change.planned)} likes per "
        f"1,000 recommendations than {control.variant}, which does not ({control.per_thousand.value:.1f})"
        f"{_same_people(change)}."
    )


def _what_exploring_cost_and_found(report: LoopReport) -> str:
    found = {arm.variant: arm for arm in report.loop.discovery}
    change, explorer = report.loop.exploring, found.get(report.loop.explorer or "")
    if explorer is None:
        return f"{report.loop.new_items:,} new items entered the catalogue, and no variant explored."
    if change is None:
        cost = "What exploring cost cannot be told, as nobody met a greedy variant beside it"
    else:
        answer = _by_sign(
            change.planned,
            "Exploring cost nothing",
            "Exploring had a price",
            "Whether exploring cost anything cannot be told from this run",
        )
        cost = (
            f"{answer}: {change.variant} earned {_more(change.planned)} likes per 1,000 recommendations than "
            f"{change.control}, which learns from the same log and does not explore"
        )
    others = "; ".join(f"{name}: {_times(arm)}" for name, arm in found.items() if name != explorer.variant)
    return (
        f"{cost}; of {report.loop.new_items:,} new items it found {_times(explorer)} that were liked at least "
        f"{_listed(THRESHOLDS)} times{f' ({others})' if others else ''}."
    )


def _both_together(report: LoopReport) -> str:
    change = report.difference(report.loop.explorer)
    if change is None:
        return "Nobody met the exploring variant and the control both, so there is nothing to compare."
    unpaired = f"; unpaired {interval(change.unpaired, signed=True)}" if change.paired is not None else ""
    return (
        f"Learning and exploring together, {change.variant} against {change.control}: "
        f"{interval(change.planned, signed=True)} likes per 1,000 recommendations, {verdict(change)}{unpaired}."
    )


def _by_sign(found: Interval, above: str, below: str, unclear: str) -> str:
    if not found.excludes_zero:
        return unclear
    return above if found.value > 0 else below


def _more(found: Interval) -> str:
    """5.2 (1.1 to 9.3) more; of a loss, as many fewer."""
    if found.value >= 0:
        return f"{interval(found)} more"
    low, high = (None if bound is None else -bound for bound in (found.high, found.low))
    return f"{interval(Interval(value=-found.value, low=low, high=high))} fewer"


def _same_people(change: Difference) -> str:
    return "" if change.people is None else f", with the same {change.people:,} people in both"


def _times(arm: Discovery) -> str:
    return _listed([arm.discovered[threshold] for threshold in THRESHOLDS])


def _listed(numbers: Sequence[int]) -> str:
    return " / ".join(f"{number:,}" for number in numbers)


def _what_happened(report: LoopReport) -> str:
    failures = sum(report.traffic.errors.values())
    failed = f" {failures:,} request{'s' * (failures > 1)} failed." if failures else ""
    return (
        f"Visitors with the tastes of {report.people:,} real people, a twin of each in every variant, came "
        f"{report.traffic.visits:,} times in {_duration(report.traffic.seconds)}, saw {report.loop.impressions:,} "
        f"recommendations and liked {report.loop.reward:,.0f} of them.{failed}"
    )


def _how_fast_and_how_sure(report: LoopReport) -> str:
    fresh = report.traffic.feedback_to_parameters
    speed = (
        f"Feedback changed the parameters in serving within {milliseconds(fresh.p50_ms)} (median; "
        f"{milliseconds(fresh.p99_ms)} for 99 %)"
        if fresh.count
        else f"How fast feedback reaches serving was not measured ({fresh.unmeasured or 'no sample'})"
    )
    measured = report.arm(report.loop.greedy)
    if report.loop.off_policy is None or measured is None:
        return f"{speed}; there was no pair of exploring and greedy variants to check the off-policy estimate."
    estimate = report.loop.off_policy.read_first()
    value = per_thousand(estimate.value)
    fit = agreement(value, measured.per_thousand)
    if estimate.overlap.warning is not None or fit is None:
        return f"{speed}; the log overlaps too little with the greedy policy for an off-policy estimate to be believed."
    return (
        f"{speed}; the off-policy estimate of the greedy policy, {interval(value)}, {fit} its measured "
        f"{interval(measured.per_thousand)}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"
