"""Verdicts on logs whose truth is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Plan, Status, Variant
from feature_store.definitions import DAY_MS
from offline_training.experiment.analysis import ExperimentReport, analyse
from offline_training.experiment.outcomes import Outcomes, slates_before
from offline_training.experiment.page import figures, page
from offline_training.experiment.planning import power
from offline_training.experiment.tracking import ExperimentTracking
from tests.experiment_log import running

PLAN = Plan(
    name="test",
    hypothesis="More & <better>.",
    variants=(Variant(name="control"), Variant(name="treatment", bandit={"alpha": 2.0})),
    guardrails=("latency_ms", "decisions_per_user"),
    planned_users=4_000,
)


def found(
    rates: dict[str, float], users: int = 4_000, seed: int = 0, latency: dict[str, float] | None = None,
    split: float = 0.5, past: float = 0.0,
) -> Outcomes:  # fmt: skip
    """Users with three slates of four items each over ten days; past: how alike a user's taste is to before."""
    rng = np.random.default_rng(seed)
    names = list(rates)
    variant = (rng.random(users) >= split).astype(np.int64) if len(names) == 2 else rng.integers(len(names), size=users)
    taste = rng.beta(2, 2, users) * 2
    user = np.repeat(np.arange(users), 3)
    rng.shuffle(user)
    decision = np.repeat(np.arange(len(user)), 4)
    level = np.array([rates[name] for name in names])[variant] * (past * taste + 1 - past)
    reward = (rng.random(len(decision)) < level[user[decision]]).astype(np.float64)
    before = rng.binomial(60, np.clip(0.3 * taste, 0, 1), users).astype(np.float64) if past else np.zeros(users)
    slow = np.array([(latency or {}).get(name, 5.0) for name in names])
    return Outcomes(
        users=pa.array([f"u{n}" for n in range(users)]),
        variants=tuple(names),
        variant=variant,
        user=user,
        time=np.sort(rng.integers(0, 10 * DAY_MS, len(user))),
        latency=rng.gamma(5.0, slow[variant[user]] / 5),
        decision=decision,
        item=rng.integers(0, 50, len(decision)),
        reward=reward,
        positive=reward >= 0.5,
        before={"reward": before, "impressions": np.where(before > 0, 60.0, 0.0), "decisions": np.sign(before)},
        left_out={"duplicate": 3},
    )


def report(rates: dict[str, float], plan: Plan = PLAN, **fields: Any) -> ExperimentReport:
    return analyse(plan, found(rates, **fields))


def test_a_better_variant_is_said_to_be() -> None:
    made = report({"control": 0.2, "treatment": 0.26})
    assert (made.verdict.answer, made.verdict.variant) == ("better", "treatment")
    assert made.verdict.sentence.startswith("treatment is better: +")
    primary = next(one for one in made.metrics if one.role == "primary")
    (effect,) = primary.effects
    assert effect.always_valid.low is not None
    assert effect.always_valid.high is not None
    assert effect.always_valid.low < 0.3 < effect.always_valid.high
    assert {one.variant: round(one.value.value, -1) for one in primary.figures} == {"control": 200, "treatment": 260}


def test_a_worse_one_no_difference_and_not_known_yet() -> None:
    assert report({"control": 0.26, "treatment": 0.2}).verdict.answer == "worse"
    alike = report({"control": 0.5, "treatment": 0.5}, PLAN.model_copy(update={"minimum_effect": 0.1}), users=8_000)
    assert alike.verdict.answer == "no_difference"
    early = report({"control": 0.2, "treatment": 0.21}, users=400)
    assert early.verdict.answer == "open"
    assert "after 400 of 4,000 planned users" in early.verdict.sentence


def test_of_several_the_best_is_named() -> None:
    plan = PLAN.model_copy(update={"variants": (*PLAN.variants, Variant(name="other"))})
    made = report({"control": 0.2, "treatment": 0.25, "other": 0.3}, plan)
    assert (made.verdict.answer, made.verdict.variant) == ("better", "other")
    assert "(treatment too, by less)" in made.verdict.sentence


def test_a_guardrail_that_gets_worse_stops_what_is_better() -> None:
    made = report({"control": 0.2, "treatment": 0.3}, latency={"control": 5.0, "treatment": 8.0})
    assert (made.verdict.answer, made.verdict.variant) == ("harm", "treatment")
    assert "ms from request to decision got worse" in made.verdict.sentence
    faster = report({"control": 0.2, "treatment": 0.3}, latency={"control": 8.0, "treatment": 5.0})
    assert faster.verdict.answer == "better"


def test_a_split_that_is_off_gives_no_verdict() -> None:
    made = report({"control": 0.2, "treatment": 0.3}, split=0.7)
    assert made.verdict.answer == "broken"
    assert made.verdict.sentence.startswith("No verdict: the users are not split as planned (control: ")
    nobody = report({"control": 0.2, "treatment": 0.3}, split=1.0)
    assert nobody.verdict.answer == "broken"
    with pytest.raises(InvalidInput, match="Nobody met the control 'control'"):
        report({"control": 0.2, "treatment": 0.3}, split=0.0)


def test_what_users_did_before_sharpens_the_interval_and_makes_slices() -> None:
    blunt, sharp = (report({"control": 0.3, "treatment": 0.3}, past=past) for past in (0.0, 1.0))
    (one,) = next(metric for metric in blunt.metrics if metric.role == "primary").effects
    (other,) = next(metric for metric in sharp.metrics if metric.role == "primary").effects
    assert (one.variance_removed, blunt.slices) == (0, [])
    assert other.variance_removed > 0.15
    assert {slice_.variant for slice_ in sharp.slices} == {"treatment"}
    assert len(sharp.slices) >= 2


def test_an_effect_that_wears_off_is_seen_to() -> None:
    """The treatment earns twice as much on a user's first slate, and the same on the others."""
    made = found({"control": 0.2, "treatment": 0.2})
    first, rng = slates_before(made) == 0, np.random.default_rng(1)
    curious = first[made.decision] & (made.variant[made.user[made.decision]] == 1)
    reward = np.where(curious, rng.random(len(curious)) < 0.4, made.reward).astype(np.float64)
    known = analyse(PLAN, replace(made, reward=reward, positive=reward > 0))
    assert [(one.first, one.last, one.variant) for one in known.novelty] == [(1, 1, "treatment"), (2, 3, "treatment")]
    fresh, used = (one.effect for one in known.novelty)
    assert fresh.low is not None
    assert fresh.low < 1.0 < (fresh.high or 0)
    assert used.low is not None
    assert used.low < 0.0 < (used.high or 0)
    assert "novelty.png" in figures(known)
    assert "as users get used to it" in page(known)


def test_looks_end_with_what_is_known_now() -> None:
    made = report({"control": 0.2, "treatment": 0.26})
    last = [look for look in made.looks if look.metric == "reward_per_impression" and look.variant == "treatment"][-1]
    (effect,) = next(metric for metric in made.metrics if metric.role == "primary").effects
    assert last.time == made.time
    assert last.effect == effect.always_valid
    assert {look.metric for look in made.looks} == {"reward_per_impression", "latency_ms", "decisions_per_user"}
    assert msgspec.json.decode(msgspec.json.encode(made), type=ExperimentReport) == made


def test_the_page_begins_with_the_verdict_and_shows_what_was_left_out() -> None:
    made = report({"control": 0.2, "treatment": 0.26})
    html = page(made)
    assert html.index(made.verdict.sentence) < html.index("<h2>Numbers") < html.index("<svg")
    assert "More &amp; &lt;better&gt;." in html
    assert "3 logged twice" in html
    assert "<td>treatment</td><td>bandit.alpha = 2.0</td>" in html
    assert set(figures(made)) == {
        "reward_per_impression.png",
        "latency_ms.png",
        "decisions_per_user.png",
        "novelty.png",
    }


def test_a_plan_says_how_many_users_it_needs() -> None:
    past = found({"all": 0.2}, users=2_000)
    needed = power(PLAN, past)
    # 12 impressions of rate .2 per user: the relative standard deviation of a user is sqrt(.8 / (.2 * 12)).
    assert needed.users == pytest.approx(2 * 15.7 * 0.8 / (0.2 * 12) / 0.05**2, rel=0.1)
    assert needed.users_at_any_look > needed.users
    assert needed.days == pytest.approx(needed.users_at_any_look / 200, rel=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mlflow_has_an_experiment_with_a_run_per_variant_that_grows(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("matchloop/test", artifact_location=str(tmp_path / "artifacts"))
    experiment = running("test", variants=PLAN.variants, hypothesis=PLAN.hypothesis, guardrails=PLAN.guardrails)
    made = report({"control": 0.2, "treatment": 0.26})
    tracking = ExperimentTracking("matchloop", uri)
    identity = tracking.update(experiment, made)
    assert tracking.update(experiment, made) == identity
    runs = {run.data.tags["variant"]: run for run in client.search_runs([identity])}
    assert set(runs) == {"control", "treatment"}
    treatment = runs["treatment"]
    assert treatment.data.params["bandit.alpha"] == "2.0"
    assert treatment.info.status == "RUNNING"
    history = client.get_metric_history(treatment.info.run_id, "reward_per_impression.change.low")
    assert len(history) == 20  # the same report again adds nothing
    assert sorted(one.timestamp for one in history)[-1] == made.time
    kept = {file.path for file in client.list_artifacts(treatment.info.run_id)}
    assert {"report.html", "report.json", "reward_per_impression.png"} <= kept
    note = client.get_experiment(identity).tags["mlflow.note.content"]
    assert made.verdict.sentence in note

    stopped = experiment.model_copy(update={"status": Status.STOPPED, "stopped": made.time})
    tracking.update(stopped, made)
    assert {run.info.status for run in client.search_runs([identity])} == {"FINISHED"}
