"""Everything a report says: one object, made by those who measured, read by the page, the terminal and the tracking
server.
"""

import msgspec
import numpy as np

from offline_training.experiment.loop_metrics import LoopMetrics
from offline_training.experiment.statistics import Arm, Difference
from offline_training.simulation.freshness import Delays
from offline_training.simulation.result import SimulationResult

_QUANTILES = 51


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of delays in milliseconds."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    open: int  # not over when measuring ended: true delays are longer
    unmeasured: str | None  # why there is nothing
    quantiles_ms: list[float]  # at 0, 2 %, 4 % .. 100 %


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated visitors did and met."""

    seconds: float
    visits: int
    visits_unlogged: int  # answered while the log was slow: without exploration, and not in the lake
    users: int
    users_satisfied: int
    users_unserved: int
    rewards_possible: int
    errors: dict[str, int]
    error_examples: dict[str, str]
    items_entered: int
    items_failed: int
    items_never_shown: int
    items_shown_too_early: int
    request: Delay
    feedback_to_parameters: Delay
    feedback_to_answer: Delay
    item_to_servable: Delay
    item_to_impression: Delay


class ModelQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Offline metrics of one release, or of one baseline, on the held-out part of the training data."""

    name: str
    baseline: bool
    metrics: dict[str, float]


class LoopReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the closed loop."""

    data_set: str
    people: int  # who came, as a visitor in each variant
    items: int
    interactions: int
    seed: int
    positive_value: float  # an interaction of at least this value is a like
    created_ms: int
    loop: LoopMetrics
    traffic: Traffic
    quality: list[ModelQuality]
    state_equals_replay: bool  # the live bandit state is its base plus a replay of the log
    state_largest_difference: float  # relative to the sum of absolute contributions
    stage_seconds: dict[str, float]

    def arm(self, variant: str | None) -> Arm | None:
        """What a variant got, None if nobody met it."""
        return next((arm for arm in self.loop.comparison.arms if arm.variant == variant), None)

    def difference(self, variant: str | None) -> Difference | None:
        """A variant against the control."""
        return next((d for d in self.loop.comparison.differences if d.variant == variant), None)

    @property
    def differences(self) -> list[Difference]:
        """Every variant against the control, and what exploring did to the greedy one."""
        exploring = self.loop.exploring
        return [*self.loop.comparison.differences, *([] if exploring is None else [exploring])]


def delay(measured: Delays) -> Delay:
    """Summarises samples."""
    samples = measured.samples_ms
    return Delay(
        count=len(samples),
        p50_ms=measured.quantile(0.5),
        p99_ms=measured.quantile(0.99),
        open=measured.open,
        unmeasured=measured.unmeasured,
        quantiles_ms=np.quantile(samples, np.linspace(0, 1, _QUANTILES)).tolist() if samples else [],
    )


def traffic(result: SimulationResult) -> Traffic:
    """Summarises a simulation."""
    return Traffic(
        seconds=result.seconds,
        visits=len(result.visits),
        visits_unlogged=sum(not visit.logged for visit in result.visits),
        users=result.users,
        users_satisfied=result.users_satisfied,
        users_unserved=result.users_unserved,
        rewards_possible=result.rewards_possible,
        errors=result.errors,
        error_examples=result.error_examples,
        items_entered=result.items_entered,
        items_failed=len(result.items_failed),
        items_never_shown=len(result.items_never_shown),
        items_shown_too_early=len(result.items_shown_too_early),
        request=delay(result.request_ms),
        feedback_to_parameters=delay(result.feedback_to_parameters),
        feedback_to_answer=delay(result.feedback_to_answer),
        item_to_servable=delay(result.item_to_servable),
        item_to_impression=delay(result.item_to_impression),
    )


def figures(report: LoopReport) -> dict[str, float]:
    """The headline figures by flat names: what a tracking server or a benchmark compares from run to run."""
    found: dict[str, float | None] = {"state_equals_replay": float(report.state_equals_replay)}
    for arm in report.loop.comparison.arms:
        name = f"arm.{arm.variant}"
        found |= {
            f"{name}.reward_per_1000": arm.per_thousand.value,
            f"{name}.reward_per_1000_low": arm.per_thousand.low,
            f"{name}.reward_per_1000_high": arm.per_thousand.high,
            f"{name}.impressions": arm.impressions,
            f"{name}.users": arm.users,
        }
    for change in report.differences:
        name = "exploring" if change == report.loop.exploring else f"difference.{change.variant}"
        found |= {
            f"{name}.value": change.planned.value,
            f"{name}.low": change.planned.low,
            f"{name}.high": change.planned.high,
            f"{name}.unpaired_low": change.unpaired.low,
            f"{name}.unpaired_high": change.unpaired.high,
            f"{name}.always_valid_low": change.always_valid.low,
            f"{name}.always_valid_high": change.always_valid.high,
        }
    found["sample_ratio.p_value"] = report.loop.comparison.sample_ratio.p_value
    for share in report.loop.exploration:
        found[f"exploration.{share.variant}"] = share.explored
    for arm_discovery in report.loop.discovery:
        for threshold, count in arm_discovery.discovered.items():
            found[f"discovered_{threshold}.{arm_discovery.variant}"] = count
    for name in ("request", "feedback_to_parameters", "feedback_to_answer", "item_to_servable", "item_to_impression"):
        measured: Delay = getattr(report.traffic, name)
        found |= {f"{name}.p50_ms": measured.p50_ms, f"{name}.p99_ms": measured.p99_ms}
    if report.loop.off_policy is not None:
        estimate = report.loop.off_policy.read_first()
        found |= {
            "off_policy.reward_per_1000": estimate.value.value * 1000,
            "off_policy.effective_size": estimate.overlap.effective_size,
        }
    for model in report.quality:
        found |= {f"{model.name}.{metric}": value for metric, value in model.metrics.items()}
    found |= {
        "visits": report.traffic.visits,
        "visits_per_second": report.traffic.visits / report.traffic.seconds if report.traffic.seconds else None,
        "visits_unlogged": report.traffic.visits_unlogged,
        "errors": sum(report.traffic.errors.values()),
        "items_never_shown": report.traffic.items_never_shown,
    }
    found |= {f"seconds.{stage}": seconds for stage, seconds in report.stage_seconds.items()}
    return {name: float(value) for name, value in found.items() if value is not None}
