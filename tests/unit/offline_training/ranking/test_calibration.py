"""Platt scaling finds the line that made the rewards, and keeps its head when there is nothing to find."""

import numpy as np
import pytest

from offline_training.ranking.calibration import platt, sigmoid


def test_finds_slope_and_intercept() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=50_000)
    rewards = (rng.random(50_000) < sigmoid(0.5 * logits - 1)).astype(np.float64)
    assert platt(logits, rewards, np.ones(50_000)) == pytest.approx((0.5, -1.0), abs=0.05)


def test_weights_count_as_repetitions() -> None:
    rng = np.random.default_rng(1)
    logits, rewards = rng.normal(size=200), rng.integers(0, 2, 200).astype(np.float64)
    twice = np.where(np.arange(200) < 100, 2.0, 1.0)
    repeated = np.repeat(np.arange(200), twice.astype(np.int64))
    assert platt(logits, rewards, twice) == pytest.approx(
        platt(logits[repeated], rewards[repeated], np.ones(300)), abs=1e-6
    )


def test_never_reverses_the_order() -> None:
    logits = np.linspace(-3, 3, 1_000)
    slope, intercept = platt(logits, (logits < 0).astype(np.float64), np.ones(1_000))
    assert slope == 1.0
    assert np.isfinite(intercept)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_rewards_that_are_all_alike_give_finite_numbers(reward: float) -> None:
    logits = np.array([100.0, -100.0, 0.0])
    assert np.isfinite(platt(logits, np.full(3, reward), np.ones(3))).all()
    assert platt(np.zeros(0), np.zeros(0), np.zeros(0)) == (1.0, 0.0)


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == [0.0, 0.5, 1.0]
