"""The log as the event loop sees it: append, wait, know how each partition is doing."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import MatchLoopError, Unavailable
from feature_store.contracts.events import Event, Tick, encode
from online_serving.metrics import APPEND, LOG_STALLED
from streaming.kafka import Appended, Log, Writer, partition_of
from streaming.settings import KafkaSettings

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class DecisionLog(Protocol):
    """Where decisions go."""

    def stalled_seconds(self, user: str) -> float:
        """How long the user's partition has owed an acknowledgement; 0 if it owes none."""

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        """Appends one record under the user's key. The future is done when the log has it, or holds Unavailable:
        Unacknowledged if the log may have it all the same."""


class EventLog:
    """Appends to the topics with one Writer, from the event loop. Knows which partitions have gone quiet.

    The futures are to be waited for, not cancelled: a record that was sent stays on its way.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._writer: Writer | None = None
        self._catalogue_id = ""
        self._settings = settings
        self._clock = clock
        self._partitions = [_Partition() for _ in range(settings.partitions)]
        for number, partition in enumerate(self._partitions):
            LOG_STALLED.labels(str(number)).set_function(partition.stalled_seconds)

    @contextlib.asynccontextmanager
    async def running(self, bootstrap: str) -> AsyncIterator[None]:
        """Appends to the log at this address, whose topics are made where they are missing. While Kafka does not
        answer, every record is refused. Raises LogMismatch if the log is not the one of the settings."""
        tasks = [asyncio.create_task(self._tick())]
        try:
            await self._open(bootstrap)
        except Unavailable as error:
            _log.warning("starting without the log: %s", error)
            tasks.append(asyncio.create_task(self._open_later(bootstrap)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._writer:
                await asyncio.to_thread(self._writer.close)

    @property
    def catalogue_id(self) -> str:
        """The id of the catalogue topic's log; empty before the log has answered."""
        return self._catalogue_id

    def stalled_seconds(self, user: str) -> float:
        """How long the user's partition has owed an acknowledgement; 0 if it owes none. A record that failed is still
        owed: only an acknowledgement shows that the partition is well again."""
        return self._partitions[self._partition_of(user)].stalled_seconds()

    def silent(self, seconds: float) -> list[int]:
        """The partitions that have acknowledged nothing to this process for so long, or nothing at all."""
        oldest = time.monotonic() - seconds
        return [number for number, partition in enumerate(self._partitions) if partition.acknowledged < oldest]

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        """Appends one record of the user's events to the events topic."""
        return self._send_events(self._partition_of(user), user, events)

    def append_catalogue(self, item: str, value: bytes) -> "asyncio.Future[Appended]":
        """Appends one record to the catalogue topic."""
        return self._send(self._settings.topics.catalogue, item, value, None)

    async def _open(self, bootstrap: str) -> None:
        log = Log(self._settings, bootstrap)
        await asyncio.to_thread(log.create_topics)
        self._catalogue_id = await asyncio.to_thread(log.log_id, self._settings.topics.catalogue)
        topics = [self._settings.topics.events, self._settings.topics.catalogue]
        self._writer = await asyncio.to_thread(log.writer, topics)

    async def _open_later(self, bootstrap: str) -> None:
        while self._writer is None:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                await self._open(bootstrap)
            except MatchLoopError as error:
                _log.error("answering without the log: %s", error)

    async def _tick(self) -> None:
        """Keeps stream time moving in partitions that this process appends nothing to, and looks whether one that owes
        acknowledgements has come back. Runs until cancelled."""
        period = self._settings.tick_seconds
        while True:
            quiet_since = time.monotonic() - period
            for number, partition in enumerate(self._partitions):
                due = partition.acknowledged < quiet_since or partition.stalled_seconds() > 0
                if due and not partition.waiting and self._writer:
                    self._send_events(number, None, [Tick(time=self._clock.now_ms())])
            await asyncio.sleep(period / 4 if self._writer else _RETRY_SECONDS)

    def _partition_of(self, user: str) -> int:
        return partition_of(user, self._settings.partitions)

    def _send_events(self, number: int, user: str | None, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        return self._send(self._settings.topics.events, user, encode(events), number)

    def _send(self, topic: str, key: str | None, value: bytes, partition: int | None) -> "asyncio.Future[Appended]":
        """partition: of the events topic, None for another topic."""
        started = time.monotonic()

        def answered(done: "asyncio.Future[Appended]") -> None:
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                _log.warning("%s", error)
            else:
                APPEND.observe(time.monotonic() - started)

        answer: Future[Appended]
        if self._writer is None:
            answer = Future()
            answer.set_exception(Unavailable("The log does not answer. Send it again."))
        else:
            answer = self._writer.send(topic, key, value, partition)
        sent = asyncio.wrap_future(answer)
        if partition is not None:
            self._partitions[partition].sent(sent, answer)
        sent.add_done_callback(answered)
        return sent


class _Sent(NamedTuple):
    """A record on its way."""

    answer: Future[Appended]  # of the writer, which does not wait for the event loop
    since: float


class _Partition:
    """What a partition owes this process."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[Appended], _Sent] = {}  # what the event loop knows no answer to, oldest first
        self.acknowledged = float("-inf")  # when it last acknowledged something
        self._owes_since: float | None = None

    def stalled_seconds(self) -> float:
        """An acknowledgement counts when it has come, and not when a busy event loop comes to it."""
        if self._owes_since is None:
            return 0.0
        now, owes_since = time.monotonic(), self._owes_since
        if any(sent.answer.done() and sent.answer.exception() is None for sent in self.waiting.values()):
            owes_since = next((sent.since for sent in self.waiting.values() if not sent.answer.done()), now)
        return now - owes_since

    def sent(self, record: "asyncio.Future[Appended]", answer: "Future[Appended]") -> None:
        self.waiting[record] = _Sent(answer, time.monotonic())
        if self._owes_since is None:
            self._owes_since = self.waiting[record].since
        record.add_done_callback(self._answered)

    def _answered(self, record: "asyncio.Future[Appended]") -> None:
        del self.waiting[record]
        if not record.cancelled() and record.exception() is None:
            self.acknowledged = time.monotonic()
            self._owes_since = next((sent.since for sent in self.waiting.values()), None)
