"""Intervals against others' formulas, by hand, and by how often they hold a known truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from feature_store.arrays import Float64
from feature_store.contracts.errors import InvalidInput
from offline_training.experiment.statistics import Interval
from offline_training.off_policy.intervals import betting, clustered, empirical_bernstein, skewed_interval


def of_mean(values: Float64) -> Interval:
    mean = float(values.mean())
    return skewed_interval(clustered(mean, (values - mean) / len(values), np.arange(len(values))), 0.95)


def test_a_user_is_one_unit() -> None:
    found = clustered(0.5, np.array([0.1, -0.3, 0.2]), np.array([7, 7, 9]))
    assert found.influence == pytest.approx([-0.2, 0.2])
    assert found.standard_error == pytest.approx(math.sqrt(2 * 0.08))


def test_symmetric_values_have_the_t_interval() -> None:
    # Kurtosis of +-1 is 1: sigma is known as well as it can be, and there is no skewness.
    values = np.array([1.0, -1.0] * 10)
    found = of_mean(values)
    half = stats.t.ppf(0.975, 19) * values.std(ddof=1) / math.sqrt(20)
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_an_interval_around_skewed_values_reaches_further_to_the_long_tail() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    found = of_mean(values)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.value > 1.1 * (found.value - found.low)


def test_one_user_has_no_interval_and_equal_ones_have_an_empty_one() -> None:
    assert of_mean(np.ones(1)) == Interval(value=1.0, low=None, high=None)
    assert of_mean(np.ones(5)) == Interval(value=1.0, low=1.0, high=1.0)


@pytest.mark.parametrize("sigma", [0.5, 1.2])
def test_heavy_tails_are_held_as_often_as_stated(sigma: float) -> None:
    rng, truth = np.random.default_rng(1), math.exp(sigma**2 / 2)
    found = [of_mean(np.exp(sigma * rng.normal(size=150))) for _ in range(1_000)]
    held = np.mean([i.low is not None and i.high is not None and i.low <= truth <= i.high for i in found])
    assert 0.93 <= held <= 0.97


def test_empirical_bernstein_by_hand() -> None:
    # Ten values of which half are 1: variance 5/18, ln(4 / .05) = ln 80.
    values = np.array([0.0, 1.0] * 50)
    half = math.sqrt(2 * (25 / 99) * math.log(80) / 100) + 7 * math.log(80) / (3 * 99)
    found = empirical_bernstein(values, 1.0, 0.95)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_bets_hold_the_truth_and_are_the_tighter_ones() -> None:
    rng = np.random.default_rng(2)
    held = []
    for _ in range(300):
        values = np.where(rng.random(400) < 0.01, 20.0, 0.0)
        bound, looser = betting(values, 20.0, 0.95), empirical_bernstein(values, 20.0, 0.95)
        assert bound.low is not None
        assert bound.high is not None
        assert looser.high is not None
        assert bound.high <= looser.high
        held.append(bound.low <= 0.2 <= bound.high)
    assert np.mean(held) >= 0.95


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.floats(0.5, 100))
def test_bounds_hold_their_own_mean_and_scale_with_the_values(values: list[float], scale: float) -> None:
    x = np.array(values)
    for bound in (betting, empirical_bernstein):
        one, many = bound(x, 1.0, 0.95), bound(scale * x, scale, 0.95)
        assert one.low is not None
        assert one.high is not None
        assert one.low - 1e-9 <= one.value <= one.high + 1e-9
        assert many.high == pytest.approx(scale * one.high, abs=1e-6 * scale)


@pytest.mark.parametrize("values", [[-0.1], [1.5], []])
def test_values_outside_their_range_are_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInput, match=r"values in \[0, 1.0\]"):
        betting(np.array(values), 1.0, 0.95)
