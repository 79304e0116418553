"""The words of a report: figures as text, and what may honestly be said of them."""

import math

from offline_training.experiment.loop_metrics import Discovery
from offline_training.experiment.statistics import PER, Difference, Interval
from offline_training.report.data import Delay, LoopReport


def lower_bound(report: LoopReport) -> str:
    """How to read the rewards."""
    return (
        "Rewards are a lower bound: a visitor likes the items to which the real person gave "
        f"{report.positive_value:g} or more after the training data ends, and nothing else. People did not "
        "rate everything they would have liked."
    )


def headline(report: LoopReport) -> list[str]:
    """What happened, in four sentences."""
    return [_what_happened(report), _who_won(report), _what_was_new(report), _how_fast_and_how_sure(report)]


def verdict(change: Difference) -> str:
    """What a difference allows to say. Only the always-valid interval allows a claim without a proviso."""
    direction = "better" if change.fixed.value > 0 else "worse"
    if change.always_valid.excludes_zero:
        return f"{direction}, also by the always-valid interval"
    if change.fixed.excludes_zero:
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


def _what_happened(report: LoopReport) -> str:
    failures = sum(report.traffic.errors.values())
    failed = f" {failures:,} requests failed." if failures else ""
    return (
        f"{report.traffic.users:,} visitors with the tastes of real people came {report.traffic.visits:,} times in "
        f"{_duration(report.traffic.seconds)}, saw {report.loop.impressions:,} recommendations and liked "
        f"{report.loop.reward:,.0f} of them.{failed}"
    )


def _who_won(report: LoopReport) -> str:
    explorer, change = report.arm(report.loop.explorer), report.difference(report.loop.explorer)
    control = None if change is None else report.arm(change.control)
    if explorer is None or change is None or control is None:
        return "Nobody met the exploring variant and the control both, so there is nothing to compare."
    return (
        f"{explorer.variant} earned {interval(explorer.per_thousand)} likes per 1,000 recommendations and "
        f"{control.variant} {interval(control.per_thousand)}: a difference of {interval(change.fixed, signed=True)}, "
        f"{verdict(change)}."
    )


def _what_was_new(report: LoopReport) -> str:
    shares = {share.variant: share.explored for share in report.loop.exploration}
    found = {d.variant: d for d in report.loop.discovery}
    explorer = report.loop.explorer
    if explorer is None or explorer not in found:
        return f"{report.loop.new_items:,} new items entered the catalogue; no variant explored."
    change = report.difference(explorer)
    others = [name for name in found if change is not None and name == change.control]
    versus = "".join(f", against {_liked(found[name])} with {name}" for name in others)
    first = report.traffic.item_to_impression
    shown = f", half of them within {milliseconds(first.p50_ms)} of entering" if first.count else ""
    return (
        f"Exploration made up {shares[explorer]:.1%} of what {explorer} showed; of {report.loop.new_items:,} new items "
        f"{first.count:,} were shown{shown}; {_liked(found[explorer])} were liked at least once there{versus}."
    )


def _liked(arm: Discovery) -> str:
    return f"{arm.discovered[1]:,} ({arm.per_thousand[1]:.2f} per 1,000 recommendations)"


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
