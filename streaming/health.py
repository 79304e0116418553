"""What a process that follows the log says about itself: when it last got through its work, and what is in quarantine.

A partition of a namespace or topic that fails is set aside, so that the others go on. It is tried again after a second,
then after twice as long each time, up to half a minute, and leaves quarantine when it works again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Gauge

from feature_store.contracts.errors import MatchLoopError

_log = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0
_PROBATION_SECONDS = 2.0  # without a commit: the log says only in answer to a fetch that it does not hold an offset
_SILENT_SECONDS = 120.0  # without a step: it hangs, or waits for a server


class Part(NamedTuple):
    """What fails, or works, on its own."""

    of: str  # a namespace or a topic
    partition: int


class Quarantined(NamedTuple):
    """A part that is set aside."""

    of: str
    partition: int
    reason: str


@dataclass
class _Case:
    reason: str
    delay: float
    retry_at: float
    retried_at: float | None = None  # when it was last given another try, None while it waits


class Health:
    """Written by the thread that does the work, read by the one that answers for the process."""

    def __init__(self, quarantined: Gauge, stepped: Gauge, clock: Callable[[], float] = time.monotonic) -> None:
        """quarantined: 1 or 0 by part, labelled with what it is of and the partition. stepped: time of the last step.
        clock: seconds, for waiting."""
        self._gauge = quarantined
        self._stepped = stepped
        self._clock = clock
        self._cases: dict[Part, _Case] = {}
        self._last_step = clock()

    def step(self) -> None:
        """All the work that there was has been done, or set aside."""
        self._last_step = self._clock()
        self._stepped.set_to_current_time()

    def due(self) -> list[Part]:
        """Parts whose time has come to be tried again."""
        now = self._clock()
        return [part for part, case in self._cases.items() if case.retried_at is None and case.retry_at <= now]

    def may_work(self, part: Part) -> bool:
        """Whether the part is not in quarantine, or gets another try."""
        case = self._cases.get(part)
        if case is None:
            return True
        if case.retried_at is None and case.retry_at <= self._clock():
            case.retried_at = self._clock()
        return case.retried_at is not None

    def worked(self, part: Part, progressed: bool) -> None:
        """The part did what there was to do. progressed: something was written."""
        case = self._cases.get(part)
        if case is None:
            self._gauge.labels(part.of, str(part.partition)).set(0)
        elif case.retried_at is not None and (progressed or self._clock() - case.retried_at >= _PROBATION_SECONDS):
            _log.warning("%s partition %d works again", part.of, part.partition)
            self._gauge.labels(part.of, str(part.partition)).set(0)
            self._cases = {other: kept for other, kept in self._cases.items() if other != part}

    def failed(self, part: Part, error: Exception) -> None:
        """Sets the part aside, for twice as long as the last time."""
        before = self._cases.get(part)
        delay = _FIRST_DELAY_SECONDS if before is None else min(2 * before.delay, _LONGEST_DELAY_SECONDS)
        expected = isinstance(error, MatchLoopError)
        reason = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
        _log.error(
            "quarantined for %.0f s: %s partition %d: %s",
            delay, part.of, part.partition, reason, exc_info=None if expected else error,
        )  # fmt: skip
        self._gauge.labels(part.of, str(part.partition)).set(1)
        self._cases = {**self._cases, part: _Case(reason, delay, self._clock() + delay)}

    def forget(self, part: Part) -> None:
        """The part is no longer this process's work."""
        self._cases = {other: case for other, case in self._cases.items() if other != part}
        self._gauge.remove(part.of, str(part.partition))

    def parts(self) -> list[Part]:
        """What is in quarantine, another try included."""
        return list(self._cases)

    def quarantined(self) -> list[Quarantined]:
        """What is set aside now, and why."""
        return [Quarantined(*part, case.reason) for part, case in sorted(self._cases.items())]

    def problem(self) -> str | None:
        """Why the process is not to be trusted to work, None if it is. A quarantine alone is none: the rest goes on."""
        silent = self._clock() - self._last_step
        return f"it has not got through its work for {silent:.0f} s" if silent > _SILENT_SECONDS else None
