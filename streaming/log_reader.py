"""Reads a log from its beginning to now: from the lake as far as the lake goes, and from the broker from there on."""

from collections.abc import Iterator, Sequence

from feature_store.bandit_state import Position
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.events import Event
from feature_store.lake_path import LakePath
from streaming.admission import events_of
from streaming.kafka import Log
from streaming.lake_events import coverage, read_events

_SILENCE_POLLS = 50
_POLL_MS = 200


class LogReader:
    """log: the one that the broker has now; None: only the lake is read."""

    def __init__(self, lake: LakePath, log: Log | None = None) -> None:
        self.lake = lake
        self._log = log

    def events(self, partition: int, start: int, ends: Sequence[Position]) -> Iterator[Event]:
        """The events of one partition from the offset `start` of the first log on.

        ends: up to where (exclusive), log after log if the log began anew; the last is the one that the broker has now.
        Raises Unavailable if events are neither in the lake nor, of the last log, at the broker.
        """
        for end in ends:
            yield from self._events(Position(end.log, start), partition, end.offset, end is ends[-1])
            start = 0

    def _events(self, start: Position, partition: int, end: int, present: bool) -> Iterator[Event]:
        covered = coverage(self.lake, start.log, partition)
        for offset, event in read_events(self.lake, start.log, partition, start.offset):
            if offset >= end:
                return
            yield event
        at = max(start.offset, covered)
        if at >= end:
            return
        if self._log is None or not present:
            raise Unavailable(
                f"The lake holds partition {partition} of log {start.log} up to offset {covered}, the state was folded "
                f"up to {end}. If that log is gone (a broker that keeps it in memory was killed), the rest cannot be "
                "replayed: retrain, and the next namespace begins with what the lake holds."
            )
        yield from _tail(self._log, partition, at, end)


def _tail(log: Log, partition: int, at: int, end: int) -> Iterator[Event]:
    reader = log.reader(log.settings.topics.events, {partition: at})
    try:
        silent = 0
        while at < end:
            records = reader.poll(_POLL_MS)
            silent = 0 if records else silent + 1
            if silent > _SILENCE_POLLS:
                raise Unavailable(
                    f"Partition {partition} ends before offset {end}: the broker has lost part of its log."
                )
            for record in records:
                at = record.offset + 1
                if record.offset < end:
                    try:
                        yield from events_of(record)
                    except InvalidInput:
                        continue  # a dead letter: it changed nothing
    finally:
        reader.close()
