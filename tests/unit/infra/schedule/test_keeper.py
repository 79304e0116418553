"""Weeks of a schedule, on a clock that is moved by hand."""

from pathlib import Path

import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.home import Home
from infra.schedule.feedback import Feedback
from infra.schedule.keeper import Keeper, Result
from infra.schedule.notes import Last, load
from tests.events import decision, feedback
from tests.lakes import put_log

MINUTE = 60_000
HOUR = 60 * MINUTE
HOURLY = "0 * * * *"
GOOD = Result("promoted", "release r serves")


class Retrain:
    """One that ends when it is told to."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.result: Result | None = None
        self.stopped = False

    def ended(self) -> Result | None:
        return self.result

    def stop(self) -> None:
        self.stopped = True
        self.result = self.result or Result("failed", "terminated")


class World:
    """A home, a clock, and the retrains that a keeper has begun."""

    def __init__(self, home: Path) -> None:
        self.home, self.clock, self.begun = home, ManualClock(), list[Retrain]()

    def keeper(self, cron: str | None = HOURLY, after: int | None = None) -> Keeper:
        def begin() -> Retrain:
            self.begun.append(Retrain(self.clock.now_ms()))
            return self.begun[-1]

        return Keeper(self.home, Feedback(Home(self.home)), begin, self.clock, cron, after)

    def pass_(self, keeper: Keeper, milliseconds: int, takes: int | None = None) -> None:
        """Time goes by, looked at every minute; a retrain ends well after `takes`."""
        for _ in range(milliseconds // MINUTE):
            self.clock.advance(MINUTE)
            for one in self.begun:
                if takes is not None and one.result is None and self.clock.now_ms() - one.begun >= takes:
                    one.result = GOOD
            keeper.look()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def begun(world: World) -> list[float]:
    """When retrains were begun, in hours."""
    return [one.begun / HOUR for one in world.begun]


def test_every_hour_of_a_week(world: World) -> None:
    world.pass_(world.keeper(), 7 * 24 * HOUR, takes=10 * MINUTE)
    assert begun(world) == list(range(1, 7 * 24 + 1))


def test_times_that_pass_while_one_runs_are_left_out(world: World) -> None:
    world.pass_(world.keeper(), 12 * HOUR, takes=150 * MINUTE)
    assert begun(world) == [1, 4, 7, 10]


def test_what_was_missed_is_made_up_for_once(world: World) -> None:
    world.pass_(world.keeper(), 90 * MINUTE, takes=MINUTE)
    world.clock.advance(100 * HOUR)  # nobody keeps the schedule
    keeper = world.keeper()
    world.pass_(keeper, 2 * HOUR, takes=MINUTE)
    assert begun(world) == pytest.approx([1, 101.5 + 1 / 60, 102, 103])
    assert keeper.notes.last is not None
    world.clock.advance(5 * HOUR)  # the machine sleeps
    world.pass_(keeper, 2 * MINUTE, takes=MINUTE)
    assert len(world.begun) == 5
    assert keeper.notes.last.reason == "the calendar, missed"


def test_another_expression_begins_anew(world: World) -> None:
    world.keeper()
    world.clock.advance(100 * HOUR)
    assert world.keeper("30 * * * *").notes.next == 100 * HOUR + 30 * MINUTE


def test_a_failure_is_noted_and_the_next_one_comes(world: World) -> None:
    keeper = world.keeper()
    world.pass_(keeper, HOUR)
    world.begun[0].result = Result("failed", "MLflow does not answer.")
    world.pass_(keeper, MINUTE)
    expected = Last(HOUR, HOUR + MINUTE, "the calendar", "failed", "MLflow does not answer.")
    assert load(world.home).last == keeper.notes.last == expected
    assert load(world.home).next == 2 * HOUR
    world.pass_(keeper, HOUR, takes=MINUTE)
    assert begun(world) == [1, 2]


def test_what_is_stopped_goes_on_when_the_schedule_is_kept_again(world: World) -> None:
    keeper = world.keeper()
    world.pass_(keeper, HOUR)
    keeper.stop()
    assert world.begun[0].stopped
    last = load(world.home).last
    assert last is not None
    assert last.outcome == "interrupted"
    world.clock.advance(MINUTE)
    world.pass_(world.keeper(), 10 * MINUTE, takes=MINUTE)
    assert len(world.begun) == 2, "once, and at once"


def test_so_does_what_was_killed_with_the_schedule(world: World) -> None:
    world.pass_(world.keeper(), HOUR)
    assert load(world.home).running_since == HOUR
    again = world.keeper()
    assert again.notes.last == Last(HOUR, HOUR, "the calendar", "interrupted", "it goes on now")
    again.look()
    assert len(world.begun) == 2


def test_one_that_ended_well_just_before_the_stop_is_not_interrupted(world: World) -> None:
    keeper = world.keeper()
    world.pass_(keeper, HOUR)
    world.begun[0].result = GOOD
    keeper.stop()
    last = load(world.home).last
    assert last is not None
    assert last.outcome == "promoted"


def test_after_so_much_feedback(world: World) -> None:
    keeper = world.keeper(cron=None, after=3)
    shown = decision("ada", 1, ["a", "b", "c"])
    put_log(world.home / "lake", shown, feedback(shown, "a"), feedback(shown, "b", event="2"))
    world.pass_(keeper, HOUR)
    assert not world.begun
    put_log(world.home / "lake", feedback(shown, "c", event="3"), start=3)
    world.pass_(keeper, HOUR, takes=MINUTE)
    assert len(world.begun) == 1
    assert keeper.notes.last is not None
    assert keeper.notes.last.reason == "3 events of feedback"
    again = world.keeper(cron=None, after=3)
    world.pass_(again, HOUR)
    assert len(world.begun) == 1, "what it has read does not count again"
    assert again.notes.read == {"log=x-y/partition=0": 4}


def test_what_lay_in_the_lake_before_the_schedule_does_not_count(world: World) -> None:
    shown = decision("ada", 1, ["a"])
    put_log(world.home / "lake", shown, feedback(shown, "a"))
    world.pass_(world.keeper(cron=None, after=1), HOUR)
    assert not world.begun
