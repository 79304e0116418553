"""The log as the event loop sees it: append, wait, know how the log is doing."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from feature_store.contracts.clock import Clock
from feature_store.contracts.events import Event, Tick, encode
from online_serving.metrics import APPEND
from streaming.kafka import Appended, Writer
from streaming.settings import KafkaSettings

_log = logging.getLogger(__name__)


class DecisionLog(Protocol):
    """Where decisions go."""

    @property
    def stalled_seconds(self) -> float:
        """How long the oldest record has been waiting for its acknowledgement, 0 if none waits."""

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        """Appends one record under the user's key. The future is done when the log has it, or holds Unavailable."""


class EventLog:
    """Appends to the topics with one Writer, from the event loop. Knows which partitions have gone quiet.

    The futures are to be waited for, not cancelled: a record that was sent stays on its way.
    """

    def __init__(self, writer: Writer, settings: KafkaSettings, clock: Clock) -> None:
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._waiting: dict[int, float] = {}  # records sent and not acknowledged -> when, oldest first
        self._sent = 0
        self._appended: dict[int, float] = {}  # events partition -> when this process last appended to it

    @property
    def stalled_seconds(self) -> float:
        """How long the oldest record has been waiting for its acknowledgement, 0 if none waits."""
        return time.monotonic() - next(iter(self._waiting.values())) if self._waiting else 0.0

    @property
    def silent_seconds(self) -> float:
        """How long ago the quietest partition took something from this process; infinite before all have."""
        if len(self._appended) < self._settings.partitions:
            return float("inf")
        return time.monotonic() - min(self._appended.values())

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        """Appends one record of the user's events to the events topic."""
        return self._send(self._settings.events_topic, user, encode(events), None)

    def append_catalogue(self, item: str, value: bytes) -> "asyncio.Future[Appended]":
        """Appends one record to the catalogue topic."""
        return self._send(self._settings.catalogue_topic, item, value, None)

    async def tick(self) -> None:
        """Keeps stream time moving in partitions that this process appends nothing to. Runs until cancelled."""
        period = self._settings.tick_seconds
        while True:
            now = time.monotonic()
            for partition in range(self._settings.partitions):
                if now - self._appended.get(partition, float("-inf")) >= period and self.stalled_seconds < period:
                    value = encode([Tick(time=self._clock.now_ms())])
                    self._send(self._settings.events_topic, None, value, partition)
            await asyncio.sleep(period / 4)

    def _send(self, topic: str, key: str | None, value: bytes, partition: int | None) -> "asyncio.Future[Appended]":
        number = self._sent = self._sent + 1
        started = self._waiting[number] = time.monotonic()

        def answered(done: "asyncio.Future[Appended]") -> None:
            del self._waiting[number]
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                _log.warning("%s", error)
                return
            APPEND.observe(time.monotonic() - started)
            if topic == self._settings.events_topic:
                self._appended[done.result().partition] = time.monotonic()

        sent = asyncio.wrap_future(self._writer.send(topic, key, value, partition))
        sent.add_done_callback(answered)
        return sent
