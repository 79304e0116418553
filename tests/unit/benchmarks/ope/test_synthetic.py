"""The bench's own logs: their probabilities are right, and the truth is what a policy earns."""

import numpy as np
import pytest

from benchmarks.ope.coverage import coverage
from benchmarks.ope.synthetic import KINDS, Kind, log, truth, world
from offline_training.off_policy.estimators import HEADLINE, evaluate, rips
from offline_training.off_policy.slate_log import check
from offline_training.progress import silent


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_log_is_one_that_can_be_evaluated(kind: Kind) -> None:
    made = log(world(kind, 1), 1)
    check(made)
    assert made.rewards.shape == (kind.decisions, kind.slots)
    assert evaluate(made).propensity_alarm is None


@pytest.mark.parametrize("slots", [1, 2])
def test_estimates_are_of_what_the_truth_says(slots: int) -> None:
    kind = Kind("test", 500, 250, 0.3, 0.2, -1.0, slots=slots)
    of = world(kind, 3)
    values = [rips(log(of, seed))[0].value for seed in range(120)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - truth(of, 3)) < 3.5 * error


def test_coverage_says_how_often_the_truth_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ope.coverage.KINDS", (Kind("test", 400, 200, 0.3, 0.2, 0.0),))
    monkeypatch.setattr("benchmarks.ope.coverage.WORLDS", 2)
    found = coverage(30, 0, silent)["test"]
    assert found["refused"] == 0
    assert found["estimators"][HEADLINE]["coverage"] >= 0.8
    assert found["estimators"]["direct method"]["coverage"] < 0.5
