"""Keeps a schedule: begins a retrain when one is due, one at a time, and notes what became of it.

A time that passes while a retrain runs is left out; those that passed while nobody kept the schedule are made up for
once. A retrain that was interrupted goes on when the schedule is kept again.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from feature_store.contracts.clock import Clock
from infra.schedule.calendar import Calendar
from infra.schedule.feedback import Feedback
from infra.schedule.notes import INTERRUPTED, Last, Notes, load, save

_log = logging.getLogger(__name__)

PROMOTED, FAILED = "promoted", "failed"
_LATE_MS = 60_000
_COUNT_MS = 60_000  # between two looks at how much feedback has come


class Result(NamedTuple):
    """How a retrain has ended."""

    outcome: str
    words: str


class Retrain(Protocol):
    """A retrain under way."""

    def ended(self) -> Result | None:
        """How it ended, None while it runs."""

    def stop(self) -> None:
        """Interrupts it, and returns when it has ended."""


class Keeper:
    """The schedule of one home."""

    def __init__(
        self,
        folder: Path,
        feedback: Feedback,
        begin: Callable[[], Retrain],
        clock: Clock,
        cron: str | None,
        after: int | None,
    ) -> None:
        """folder: of the notes. begin: begins a retrain. cron: when one is due, in UTC. after: or how many events of
        feedback. Raises InvalidInput if cron is no such expression."""
        self._folder, self._feedback, self._begin, self._clock = folder, feedback, begin, clock
        self._calendar = None if cron is None else Calendar(cron)
        self._retrain: Retrain | None = None
        self._counted_at = 0
        self.notes = self._resumed(load(folder), cron, after)
        save(folder, self.notes)

    def look(self) -> None:
        """Notes the end of what runs, or begins what is due."""
        now = self._clock.now_ms()
        if self._retrain is not None:
            if (result := self._retrain.ended()) is not None:
                self._end(result, now)
        elif reason := self._due(now):
            _log.info("a retrain begins: %s", reason)
            self._retrain = self._begin()
            self._note(running_since=now, reason=reason, read=self._feedback.mark())

    def stop(self) -> None:
        """Interrupts what runs."""
        if self._retrain is not None:
            self._retrain.stop()
            result = self._retrain.ended() or Result(INTERRUPTED, "")
            interrupted = Result(INTERRUPTED, "it goes on when the schedule is kept again")
            self._end(result if result.outcome == PROMOTED else interrupted, self._clock.now_ms())

    def _resumed(self, before: Notes, cron: str | None, after: int | None) -> Notes:
        now = self._clock.now_ms()
        due = before.next if before.cron == cron else None
        if self._calendar is not None and due is None:
            due = self._calendar.after(now)
        last = before.last
        if before.running_since is not None:  # killed with what it had begun
            last = Last(before.running_since, now, before.reason, INTERRUPTED, "it goes on now")
        read = before.read or self._feedback.mark()
        return Notes(cron, after, due, last=last, read=read)

    def _due(self, now: int) -> str | None:
        notes = self.notes
        if notes.last is not None and notes.last.outcome == INTERRUPTED:
            return "the one before was interrupted"
        if notes.next is not None and now >= notes.next:
            return "the calendar" if now < notes.next + _LATE_MS else "the calendar, missed"
        if notes.after is not None and now >= self._counted_at + _COUNT_MS:
            self._counted_at = now
            if (count := self._feedback.since(notes.read)) >= notes.after:
                return f"{count} events of feedback"
        return None

    def _end(self, result: Result, now: int) -> None:
        _log.log(logging.INFO if result.outcome == PROMOTED else logging.ERROR, "%s: %s", *result)
        self._retrain = None
        began = self.notes.running_since
        last = Last(now if began is None else began, now, self.notes.reason, *result)
        due = None if self._calendar is None else self._calendar.after(now)
        self._note(running_since=None, reason="", last=last, next=due)

    def _note(self, **changes: object) -> None:
        self.notes = msgspec.structs.replace(self.notes, **changes)
        save(self._folder, self.notes)
