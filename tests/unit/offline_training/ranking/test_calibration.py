"""Platt scaling finds the line that made the rewards, and keeps its head when there is nothing to find."""

import numpy as np
import pytest

from feature_store.arrays import Float64
from offline_training.ranking.calibration import Calibration, platt, sigmoid, steepness


def alone(logits: Float64, rewards: Float64, weights: Float64) -> Calibration:
    return platt(logits, np.zeros((len(logits), 0)), rewards, weights)


def line(found: Calibration) -> tuple[float, float]:
    return found.slope, found.intercept


def test_finds_slope_and_intercept() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=50_000)
    rewards = (rng.random(50_000) < sigmoid(0.5 * logits - 1)).astype(np.float64)
    assert line(alone(logits, rewards, np.ones(50_000))) == pytest.approx((0.5, -1.0), abs=0.05)


def test_weights_count_as_repetitions() -> None:
    rng = np.random.default_rng(1)
    logits, rewards = rng.normal(size=200), rng.integers(0, 2, 200).astype(np.float64)
    twice = np.where(np.arange(200) < 100, 2.0, 1.0)
    repeated = np.repeat(np.arange(200), twice.astype(np.int64))
    assert line(alone(logits, rewards, twice)) == pytest.approx(
        line(alone(logits[repeated], rewards[repeated], np.ones(300))), abs=1e-6
    )


def test_never_reverses_the_order() -> None:
    logits = np.linspace(-3, 3, 1_000)
    slope, intercept = line(alone(logits, (logits < 0).astype(np.float64), np.ones(1_000)))
    assert slope == 0.05
    assert intercept == pytest.approx(0.0, abs=1e-6), "half of them are wanted"


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_rewards_that_are_all_alike_give_finite_numbers(reward: float) -> None:
    logits = np.array([100.0, -100.0, 0.0])
    assert np.isfinite(line(alone(logits, np.full(3, reward), np.ones(3)))).all()
    assert line(alone(np.zeros(0), np.zeros(0), np.zeros(0))) == (1.0, 0.0)


def test_who_wants_less_of_everything_does_not_tilt_the_slope() -> None:
    """People with a high level get high scores, and want less; among those of one level a score means what it says."""
    rng = np.random.default_rng(2)
    level = rng.integers(0, 2, 50_000).astype(np.float64)
    logits = rng.normal(size=50_000) + 3 * level
    rewards = (rng.random(50_000) < sigmoid(0.5 * logits - 3 * level)).astype(np.float64)
    found = platt(logits, level[:, None], rewards, np.ones(50_000))
    assert (found.slope, *found.levels, found.intercept) == pytest.approx((0.5, -3.0, 0.0), abs=0.1)
    assert found.probability(logits, level[:, None]) == pytest.approx(sigmoid(0.5 * logits - 3 * level), abs=0.03)


@pytest.mark.parametrize("within", [0.5, 2.0])
def test_steepness_is_that_within_moments_over_that_of_all(within: float) -> None:
    """Moments whose logits are high want no more than others: over all rows the slope is flatter than within any."""
    rng = np.random.default_rng(3)
    moments = np.repeat(np.arange(2_000), 25)
    mean, own = rng.normal(size=2_000)[moments], rng.normal(size=50_000)
    logits = mean + own
    rewards = (rng.random(50_000) < sigmoid(within * own)).astype(np.float64)
    weights, nothing = np.ones(50_000), np.zeros((50_000, 0))
    slope = alone(logits, rewards, weights).slope
    found = steepness(logits, nothing, rewards, weights, moments, slope)
    assert found * slope == pytest.approx(within, rel=0.06)
    assert found > 1.5


def test_steepness_is_1_where_moments_are_alike_and_bounded_where_there_is_little() -> None:
    rng = np.random.default_rng(4)
    moments, logits = np.repeat(np.arange(500), 40), rng.normal(size=20_000)
    rewards = (rng.random(20_000) < sigmoid(logits)).astype(np.float64)
    weights, nothing = np.ones(20_000), np.zeros((20_000, 0))
    slope = alone(logits, rewards, weights).slope
    assert steepness(logits, nothing, rewards, weights, moments, slope) == pytest.approx(1.0, abs=0.03)
    none = np.zeros(20_000)
    assert steepness(logits, nothing, rewards, none, moments, 1.0) == pytest.approx(1.0), "no row counts"
    assert steepness(logits, nothing, rewards, weights, moments, 1e-9) == 30.0


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == [0.0, 0.5, 1.0]
