"""What was to be expected of a slate, by hand, and what must hold of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.bandit.slates import PRIOR, expected, steepened

chances = st.floats(0.001, 0.999)
slates = st.lists(st.tuples(chances, st.none() | st.floats(-1, 3)), min_size=1, max_size=12)


def test_by_hand() -> None:
    # Two items, .6 predicted, 1 wanted: a rate of 1.1 / (2 + .1 / .3) = 33/70 and not 3/10, a factor of 77/37 on odds.
    assert expected([0.2, 0.4], [0.0, 1.0]) == pytest.approx([77 / (4 * 37 + 77), 154 / 265])


def test_of_what_is_not_known_yet_nothing_is_expected() -> None:
    assert expected([0.2, 0.4], [None, 1.0]) == pytest.approx([0.0, 154 / 265])
    assert expected([0.2, 0.4], [None, None]) == [0.0, 0.0]


def test_an_item_alone_is_expected_to_earn_what_is_predicted() -> None:
    assert expected([0.2], [1.0]) == [0.2]
    assert expected([0.2, 0.4], [1.0, None], shown=[True, False]) == [0.2, 0.0]


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_predictions_that_leave_nothing_open_are_kept(chance: float) -> None:
    assert expected([chance] * 3, [1.0, 0.0, 0.0]) == [chance] * 3


@given(st.floats(0.001, 0.999), st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12))
def test_of_a_slate_of_equals_what_was_wanted_is_expected_but_for_the_prior(p: float, rewards: list[float]) -> None:
    total, wanted = p * len(rewards), sum(rewards)
    assert sum(expected([p] * len(rewards), rewards)) == pytest.approx((wanted + PRIOR) * total / (total + PRIOR))


def test_steepened_by_hand() -> None:
    # Odds 1/4, 1 and 4: the best two are at 2 on average, from where twice as far is 1/32, 1/2 and 8.
    found = steepened(np.array([1 / 5, 1 / 2, 4 / 5]), 2.0, 2)
    assert found == pytest.approx([1 / 33, 1 / 3, 8 / 9])
    assert steepened(np.array([0.1, 0.2]), 1.0, 2).tolist() == [0.1, 0.2]
    assert steepened(np.zeros(0), 3.0, 2).tolist() == []
    assert steepened(np.array([0.3]), 3.0, 20) == pytest.approx([0.3])


@given(st.lists(st.sampled_from([0.0, 1e-12, 0.1, 0.5, 1.0]), min_size=1), st.floats(1 / 30, 30), st.integers(0, 30))
def test_steepened_predictions_are_chances_in_the_same_order(p: list[float], steepness: float, among: int) -> None:
    found = steepened(np.array(p), steepness, among)
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


@given(slates)
def test_it_is_a_chance_in_the_order_of_the_predictions(slate: list[tuple[float, float | None]]) -> None:
    predicted, rewards = zip(*slate, strict=True)
    found = expected(predicted, rewards)
    assert all(0 <= e <= 1 for e in found)
    known = sorted((p, e) for p, e, r in zip(predicted, found, rewards, strict=True) if r is not None)
    assert [e for _, e in known] == sorted(e for _, e in known)


@given(slates, st.integers(0, 11))
def test_the_more_is_wanted_the_more_was_to_be_expected(slate: list[tuple[float, float | None]], place: int) -> None:
    predicted, rewards = zip(*slate, strict=True)
    less, more = list(rewards), list(rewards)
    less[place % len(rewards)], more[place % len(rewards)] = 0.0, 1.0
    for one, other in zip(expected(predicted, less), expected(predicted, more), strict=True):
        assert one <= other + 1e-12
