"""Adjustments by hand and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from offline_training.experiment.adjusted import (
    always_valid_p,
    benjamini_hochberg,
    cuped,
    holm,
    planned_users,
    relative,
    shrunk,
)
from offline_training.experiment.planning import at_any_look
from offline_training.experiment.statistics import always_valid, difference, ratio

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert (holm([]), benjamini_hochberg([])) == ([], [])


@given(P_VALUES)
def test_adjusted_p_values_keep_their_order_and_agree_with_scipy(p_values: list[float]) -> None:
    for adjusted in (holm(p_values), benjamini_hochberg(p_values)):
        assert all(p <= q + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
        order = np.argsort(p_values, kind="stable")
        assert np.all(np.diff(np.array(adjusted)[order]) >= -1e-12)
    np.testing.assert_allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values), atol=1e-12)


def test_cuped_is_the_regression_on_what_was_before() -> None:
    rng = np.random.default_rng(0)
    n, ones = 4_000, np.ones(4_000)
    before = {name: rng.gamma(2.0, 1.0, n) for name in ("a", "b")}
    after = {name: 0.5 + 0.8 * column + rng.normal(0, 0.3, n) for name, column in before.items()}
    after["b"] += 0.05
    arms = {name: ratio(column, ones) for name, column in after.items()}
    adjusted, removed = cuped(arms, {name: column[:, None] for name, column in before.items()})
    found = difference(adjusted["b"], adjusted["a"])
    # Ordinary least squares of the outcome on arm and covariate.
    design = np.column_stack([np.repeat([0, 1], n), np.concatenate([before["a"], before["b"]]), np.ones(2 * n)])
    beta = np.linalg.lstsq(design, np.concatenate([after["a"], after["b"]]), rcond=None)[0]
    assert found.value == pytest.approx(beta[0], abs=1e-9)
    assert removed == pytest.approx(1 - 0.09 / (0.64 * 2 + 0.09), abs=0.01)
    assert found.standard_error == pytest.approx(np.sqrt(2 * 0.09 / n), rel=0.03)


def test_covariates_that_say_nothing_change_nothing() -> None:
    arms = {name: ratio(np.array(column), np.ones(3)) for name, column in (("a", [1.0, 2, 3]), ("b", [2.0, 2, 5]))}
    adjusted, removed = cuped(arms, {name: np.zeros((3, 2)) for name in arms})
    assert removed == pytest.approx(0)
    assert {name: one.value for name, one in adjusted.items()} == pytest.approx({"a": 2, "b": 3})


def test_a_relative_change_is_the_difference_as_a_share_of_the_control() -> None:
    treatment, control = ratio(np.array([2.0, 4.0]), np.ones(2)), ratio(np.array([1.0, 3.0]), np.ones(2))
    found = relative(treatment, control)
    assert found.value == pytest.approx(0.5)
    assert found.degrees == pytest.approx(2)
    assert found.standard_error == pytest.approx(np.sqrt(1 + 1) / 2)  # both variances of a mean are 1
    worse = relative(ratio(np.array([-4.0, -2.0]), np.ones(2)), ratio(np.array([-3.0, -1.0]), np.ones(2)))
    assert worse.value == pytest.approx(-0.5)


@given(st.floats(-0.5, 0.5), st.integers(100, 10_000), st.floats(0.6, 0.99))
def test_the_p_value_is_where_the_interval_begins_to_exclude_zero(
    shift: float, planned: int, confidence: float
) -> None:
    rng = np.random.default_rng(1)
    a, b = (ratio(rng.normal(level, 1, 300), np.ones(300)) for level in (1.0, 1.0 + shift))
    change = difference(b, a)
    p_value = always_valid_p(change, confidence, planned)
    assert (p_value < 1 - confidence) is always_valid(change, confidence, planned).excludes_zero


def test_slices_are_drawn_together_as_far_as_their_differences_may_be_noise() -> None:
    same = shrunk(np.array([0.1, 0.1, 0.1]), np.array([0.1, 0.2, 0.3]))
    assert same.between == 0
    np.testing.assert_allclose(same.effects, 0.1)
    apart = shrunk(np.array([-1.0, 0.0, 1.0]), np.array([0.01, 0.01, 0.01]))
    assert apart.between == pytest.approx(1.0, rel=0.01)
    np.testing.assert_allclose(apart.effects, [-1, 0, 1], atol=1e-3)
    noisy = shrunk(np.array([-0.3, 0.0, 0.3]), np.array([0.2, 0.2, 0.2]))
    assert -0.3 < noisy.effects[0] < -0.05


def test_users_for_a_power() -> None:
    # 16 s^2 / d^2 in each of two arms, the rule of thumb, is (1.96 + .84)^2 * 2 = 15.7.
    assert planned_users(1.0, 0.1, [0.5, 0.5], 0.05, 0.8) == pytest.approx(2 * 1_570, rel=0.01)
    assert planned_users(1.0, 0.1, [0.9, 0.1], 0.05, 0.8) > planned_users(1.0, 0.1, [0.5, 0.5], 0.05, 0.8)
    # One look at the planned number: c = 3.02 for alpha 5 %.
    assert at_any_look(10_000, 0.05, 0.8) == pytest.approx(10_000 * ((3.02 + 0.84) / 2.8) ** 2, rel=0.01)
