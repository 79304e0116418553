"""Appends records to topics, whatever becomes of the cluster meanwhile."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from itertools import takewhile
from typing import NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from feature_store.contracts.errors import Unacknowledged, Unavailable
from streaming.kafka_client import CONNECT_TIMEOUT_MS, connected

_log = logging.getLogger(__name__)

_LINGER_MS = 1
_BATCH_BYTES = 256 << 10  # kafka-python has one batch of a partition on its way at a time: all that waits must fit
_SEND_TIMEOUT_MS = 5_000
_DELIVERY_TIMEOUT_MS = 10_000
_OVERDUE_SECONDS = _DELIVERY_TIMEOUT_MS / 1000 + 1  # by then kafka-python has promised an answer
_LOOK_SECONDS = 1.0
_DRAIN_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


class Appended(NamedTuple):
    """Where a record was written."""

    partition: int
    offset: int


class Writer:
    """Appends records. Acknowledged by all replicas; in order per key, also over retries.

    A producer that fails a record, or leaves one without an answer, is replaced by a new one: kafka-python 3.0.12 gives
    up its producer id when a record expires between two attempts, never asks for another, and sends nothing any more.
    Records on their way then fail as Unacknowledged. They may be in the log, or come into it behind later ones.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str] = ()) -> None:
        """topics: whose partitions are looked up at once, so that `send` never waits for the cluster, as on an event
        loop it must not. Raises Unavailable if the cluster does not answer, or does not have them."""
        self._bootstrap = bootstrap
        self._topics = topics
        self._waiting: dict[Future[Appended], float] = {}  # sent and not answered -> since when, oldest first
        self._lock = threading.Lock()
        self._failed = threading.Event()  # the producer is to be replaced
        self._closing = threading.Event()
        self._producer = self._connect()
        self._keeper = threading.Thread(target=self._keep, name="log-writer", daemon=True)
        self._keeper.start()

    def send(self, topic: str, key: str | None, value: bytes, partition: int | None = None) -> "Future[Appended]":
        """Appends one record. The future holds its place once the broker has it, Unavailable if it was not sent, or
        Unacknowledged if nobody can say whether the broker has it."""
        done: Future[Appended] = Future()
        done.set_running_or_notify_cancel()
        with self._lock:
            self._waiting[done] = time.monotonic()
        try:
            sent = self._producer.send(topic, value=value, key=key.encode() if key else None, partition=partition)
        except (KafkaError, ValueError) as error:  # ValueError: of a topic or partition that is gone
            if not isinstance(error, MessageSizeTooLargeError):
                self._failed.set()
            self._answer(done, Unavailable(f"The log did not take a record: {error}. Send it again."))
            return done
        sent.add_callback(lambda meta: self._answer(done, Appended(meta.partition, meta.offset)))
        sent.add_errback(lambda error: self._fail(done, error))
        return done

    def flush(self) -> None:
        """Waits until everything sent is acknowledged or has failed."""
        with self._lock:
            waiting = list(self._waiting)
        wait(waiting)

    def close(self) -> None:
        """Flushes, for a while at most, and disconnects."""
        self._closing.set()
        self._failed.set()
        self._keeper.join()
        _end(self._producer, _CLOSE_SECONDS)

    def _connect(self) -> KafkaProducer:
        producer = connected(
            KafkaProducer,
            self._bootstrap,
            acks="all",
            metrics_enabled=False,  # its own: we have ours
            linger_ms=_LINGER_MS,
            batch_size=_BATCH_BYTES,
            enable_idempotence=True,
            max_request_size=16 << 20,
            request_timeout_ms=_SEND_TIMEOUT_MS,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,  # not longer: nobody waits for older records any more
            max_block_ms=CONNECT_TIMEOUT_MS,
        )
        try:
            for topic in self._topics:
                producer.partitions_for(topic)
        except KafkaError as error:
            _end(producer, 0.0)
            raise Unavailable(f"Kafka at {self._bootstrap} does not have topic {topic!r} ({error}).") from None
        if self._topics:
            producer.config["max_block_ms"] = 0
        return producer

    def _keep(self) -> None:
        while not self._closing.is_set():
            self._failed.wait(_LOOK_SECONDS)
            overdue = self._overdue()
            if (self._failed.is_set() or overdue) and not self._closing.is_set():
                self._replace()
                for done in overdue:  # also when there is nothing to replace it with yet
                    self._fail(done, "it was not acknowledged in time")
                self._closing.wait(_LOOK_SECONDS)

    def _overdue(self) -> "list[Future[Appended]]":
        latest = time.monotonic() - _OVERDUE_SECONDS
        with self._lock:
            return list(takewhile(lambda done: self._waiting[done] < latest, self._waiting))

    def _replace(self) -> None:
        self._failed.clear()
        try:
            new = self._connect()
        except Unavailable as error:
            self._failed.set()
            _log.warning("%s", error)
            return
        with self._lock:
            waiting = list(self._waiting)
        old, self._producer = self._producer, new
        _log.warning("the log's producer was replaced by a new one")
        _end(old, _DRAIN_SECONDS)
        for done in waiting:
            self._fail(done, "its producer was replaced")
        self._failed.clear()  # of the old one

    def _fail(self, done: "Future[Appended]", error: object) -> None:
        if not isinstance(error, MessageSizeTooLargeError):
            self._failed.set()
        self._answer(done, Unacknowledged(f"The log did not acknowledge a record: {error}. Send it again."))

    def _answer(self, done: "Future[Appended]", answer: Appended | Unavailable) -> None:
        with self._lock:
            if self._waiting.pop(done, None) is None:
                return  # given up already
        if isinstance(answer, Appended):
            done.set_result(answer)
        else:
            done.set_exception(answer)


def _end(producer: KafkaProducer, seconds: float) -> None:
    """Closes a producer, whose records have so long to be acknowledged; those that are left fail."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:  # not all were acknowledged: then it leaves its thread at work, and that has no public handle
        producer._sender.force_close()  # noqa: SLF001
        producer._sender.join(_CLOSE_SECONDS)  # noqa: SLF001
