"""Forward decay: what a trial adds, by hand."""

import math

import pytest

from feature_store.decay import NOTHING_FADES, Decay

DAY = 86_400_000


@pytest.mark.parametrize(
    ("time", "adds"), [(7, 1.0), (7 + 2 * DAY, math.e), (7 - DAY, math.exp(-0.5)), (7 + 4 * DAY, math.exp(2))]
)
def test_a_trial_of_a_memory_later_adds_e_times_as_much(time: int, adds: float) -> None:
    assert Decay(2.0, 7).trial(time) == pytest.approx(adds, rel=1e-14)


@pytest.mark.parametrize("time", [-(10**18), 0, 10**18])
def test_no_time_makes_a_sum_infinite(time: int) -> None:
    assert 0 <= Decay(1.0, 0).trial(time) <= math.exp(50)
    assert NOTHING_FADES.trial(time) == 1.0
