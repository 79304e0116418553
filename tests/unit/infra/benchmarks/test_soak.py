"""What the soak calls growth."""

import pytest

from infra.benchmarks.soak import fewest, trend


def test_what_grows_steadily_grows_by_its_slope_whatever_the_warm_up_was() -> None:
    hours = [minute / 60 for minute in range(11)]
    found = trend(hours, [500.0, 10.0, 90.0, *(100.0 + minute for minute in range(8))])
    assert found["slope_per_hour"] == pytest.approx(60)
    assert (found["first"], found["median"], found["last"], found["most"]) == (100, 103.5, 107, 107)
    assert found["growth"] == pytest.approx(7)  # of minutes 3 to 10
    assert found["growth_share"] == pytest.approx(7 / 103.5)


def test_an_outlier_and_a_saw_are_no_growth() -> None:
    hours = [minute / 60 for minute in range(41)]
    saw = [float(minute % 4) for minute in range(41)]
    saw[30] = 1_000
    assert abs(trend(hours, saw)["growth"]) < 0.5


def test_what_is_nothing_does_not_grow() -> None:
    assert trend([0.0, 1.0, 2.0, 3.0], [0.0] * 4)["growth_share"] == 0


def test_late_compactions_are_no_growth() -> None:
    assert fewest([0, 1, 2, 3, 4], [3, 1, 2, 5, 4], 2) == [3, 1, 1, 1, 2]
    minutes = list(range(60))
    late = [float(minute % 20) for minute in minutes]
    assert trend(minutes, fewest(minutes, late, 20))["growth"] == 0


def test_compactions_that_leave_more_each_time_or_do_not_come_are_growth() -> None:
    minutes = list(range(60))
    more = [float(minute % 5 + minute // 5) for minute in minutes]
    assert trend(minutes, fewest(minutes, more, 20))["growth"] == pytest.approx(41 / 5, rel=0.1)
    assert trend(minutes, fewest(minutes, minutes, 20))["growth"] == pytest.approx(41)
