"""The bench on few small experiments, and its goals from results made up by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.experiment.bench import draw, goals, rows
from benchmarks.experiment.simulated import estimates, false_positives, people, power, split_alarms, variance_removed
from benchmarks.experiment.upworthy import winners
from offline_training.experiment.statistics import difference


def results(**changes: Any) -> dict[str, Any]:
    return {
        "tests": 10,
        "tea_tasting": {"mean": 1e-12, "CUPED: difference": 1e-3},
        "aa": {"sequence": 0.01, "fixed_at_every_look": 0.2, "fixed_at_the_end": 0.05},
        "power": {"users": 100, "theory": 0.8, "found": 0.79, "found_at_any_look": 0.5},
        "cuped": {"said": 0.4, "seen": 0.4},
        "split": {"as planned": 0.0, "51 to 49": 0.96, "52 to 48": 1.0},
        "upworthy": {"winners_planned_that_lead_again": 0.99, "leaders_that_lead_again": 0.6},
        **changes,
    }


def test_goals_are_met_and_missed() -> None:
    assert all(goal.met for goal in goals(results()))
    missed = results(aa={"sequence": 0.06}, tea_tasting={"mean": 1e-5, "CUPED: difference": 0.0})
    assert [goal.name for goal in goals(missed) if not goal.met] == ["aa.sequence", "tea_tasting"]
    absent = results(tea_tasting=None)
    del absent["upworthy"]
    assert {goal.name for goal in goals(results())} - {goal.name for goal in goals(absent)} == {
        "tea_tasting",
        "upworthy.lead_again",
    }


def test_it_is_shown_and_drawn(tmp_path: Path) -> None:
    assert ["aa: sequence", "1.0%"] in rows(results())
    draw(results(), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_simulated_people_have_the_lift_they_are_given() -> None:
    found = people(np.random.default_rng(0), 200_000, lift=0.2)
    control, treatment = estimates(found, 200_000)
    assert control.value == pytest.approx(0.1, rel=0.02)
    assert treatment.value / control.value == pytest.approx(1.2, rel=0.03)
    assert difference(treatment, control).standard_error < 0.002


def test_the_parts_run() -> None:
    found = false_positives(0, 20, 400)
    assert found["sequence"] <= found["fixed_at_every_look"]
    assert power(0, 10, 0.5, 0.8)["users"] > 100
    assert variance_removed(0, 40, 500)["said"] > 0.05
    assert split_alarms(0, 10, 5_000, {"as planned": 0.5, "off": 0.6}) == {"as planned": 0.0, "off": 1.0}


def test_winners_are_judged_on_what_they_were_not_chosen_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tests = 60
    rates = np.where(rng.random((tests, 2)) < 0.5, 0.02, 0.04)
    clicks = rng.binomial(4_000, rates)
    table = {
        "test_id": pa.array([f"t{n}" for n in range(tests) for _ in range(2)], pa.large_string()),
        "impressions": pa.array([4_000] * (2 * tests), pa.int16()),
        "clicks": pa.array(clicks.ravel(), pa.int16()),
    }
    pq.write_table(pa.table(table), tmp_path / "arms.parquet")
    found = winners(tmp_path / "arms.parquet", 0)
    truly = int(np.sum(rates[:, 1] > rates[:, 0]))
    assert (found["tests"], found["comparisons"]) == (tests, tests)
    assert truly / 2 < found["winners_any_look"] <= found["winners_planned"] <= truly + 2
    assert found["winners_planned_that_lead_again"] > 0.9
    assert found["lift_promised"] > found["lift_held_out"] > 0.5
