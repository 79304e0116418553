"""Traffic around a retrain: its amount is fixed, whatever the retrain takes."""

import os
from pathlib import Path

import pytest

from feature_store.contracts.errors import MatchLoopError
from infra.live_retrain import LiveRetrain, Traffic

VISITS, PACE = 1000, 30.0


class TimedRetrain:
    """A retrain of known length on a clock that the test turns."""

    def __init__(self, length: float) -> None:
        self.length, self.now, self.began = length, 0.0, float("inf")

    @property
    def seconds(self) -> float:
        return self.now - self.began

    @property
    def done(self) -> bool:
        return self.seconds >= self.length

    def start(self) -> None:
        self.began = min(self.began, self.now)


def arrivals(length: float) -> tuple[list[float], TimedRetrain]:
    """When each visit comes, looking ten times a second while none may."""
    retrain = TimedRetrain(length)
    traffic = Traffic(VISITS, PACE, retrain)
    times: list[float] = []
    while len(times) < VISITS:
        rate = traffic.rate(len(times))
        assert 0 <= rate <= PACE
        retrain.now += 1 / rate if rate else 0.1
        if rate:
            times.append(retrain.now)
    return times, retrain


@pytest.mark.parametrize("length", [0.0, 5.0, 60.0, 600.0, 6_000.0])
def test_some_visits_come_before_beside_and_after_a_retrain_of_any_length(length: float) -> None:
    times, retrain = arrivals(length)
    end = retrain.began + length
    assert sum(time <= retrain.began for time in times) == 0.2 * VISITS
    assert sum(time > end for time in times) >= 0.1 * VISITS
    if 5 < length < 600:  # also shortly before its end, when the release is swapped in
        assert sum(0.9 * end < time <= end for time in times) >= 5
    if length < 5:
        assert times[-1] == pytest.approx(VISITS / PACE)


def test_a_retrain_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MATCHLOOP_")}
    environment["MATCHLOOP_HOME"] = str(tmp_path)
    with (
        LiveRetrain(environment, tmp_path, 0, ["item"], lambda: None) as retrain,
        pytest.raises(MatchLoopError, match=r"The retrain failed: retrain: matchloop: No broker is running"),
    ):
        retrain.result(lambda fraction, message: None)
