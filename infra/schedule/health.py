"""What the schedule's process says about itself."""

import time
from collections.abc import Callable, Sequence

from prometheus_client import Gauge

from infra.schedule.keeper import PROMOTED
from infra.schedule.notes import Notes

_SILENT_SECONDS = 120.0

NEXT = Gauge("matchloop_schedule_next_timestamp_seconds", "When a retrain is due by the calendar, 0: never")
ENDED = Gauge("matchloop_schedule_last_end_timestamp_seconds", "When a scheduled retrain last ended")
GOOD = Gauge("matchloop_schedule_last_promoted", "1: the last scheduled retrain was promoted, 0: it was not")
RUNNING = Gauge("matchloop_schedule_running", "1 while a retrain runs")


def measure(notes: Notes) -> None:
    """Sets the gauges."""
    NEXT.set((notes.next or 0) / 1000)
    RUNNING.set(notes.running_since is not None)
    if notes.last is not None:
        ENDED.set(notes.last.ended / 1000)
        GOOD.set(notes.last.outcome == PROMOTED)


class Health:
    """Written by the thread that keeps the schedule, read by the one that answers for the process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock = clock
        self._last_step = clock()

    def step(self) -> None:
        """The schedule has been looked at."""
        self._last_step = self._clock()

    def problem(self) -> str | None:
        """Why it is not to be trusted to work, None if it is. A retrain that failed is none: the next one is due."""
        silent = self._clock() - self._last_step
        return f"it has not looked at the schedule for {silent:.0f} s" if silent > _SILENT_SECONDS else None

    def quarantined(self) -> Sequence[object]:
        """Nothing: there is nothing to set aside."""
        return []
