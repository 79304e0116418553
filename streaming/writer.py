"""Appends records to topics, whatever becomes of the cluster meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from itertools import takewhile
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from feature_store.contracts.errors import InvalidInput, Unacknowledged, Unavailable

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_LINGER_MS = 1
_SEND_TIMEOUT_MS = 5_000
_DELIVERY_TIMEOUT_MS = 10_000
_OVERDUE_SECONDS = _DELIVERY_TIMEOUT_MS / 1000 + 1  # by then librdkafka has promised an answer
_LARGEST_BYTES = 16 << 20
_LOOK_SECONDS = 1.0
_DRAIN_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_ANY = -1  # partition: the key decides


class Appended(NamedTuple):
    """Where a record was written."""

    partition: int
    offset: int


class Writer:
    """Appends records. Acknowledged by all replicas; in order per key, also over retries.

    On librdkafka, whose threads need no turn of the interpreter to send: a process that computes without a pause sends
    as soon as one that is idle. One thread takes the acknowledgements.

    A producer that fails a record, or leaves one without an answer, is replaced by a new one: after a record has
    expired, brokers may refuse the old one for good. Records on their way then fail as Unacknowledged. They may be in
    the log, or come into it behind later ones.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str] = (), properties: Mapping[str, str] | None = None) -> None:
        """topics: whose partitions are looked up at once. properties: further ones of librdkafka, resolved. Raises
        Unavailable if the cluster does not answer, or does not have the topics, InvalidInput if librdkafka refuses
        properties."""
        self._bootstrap = bootstrap
        self._properties = dict(properties or {})
        self._topics = topics
        self._waiting: dict[Future[Appended], float] = {}  # sent and not answered -> since when, oldest first
        self._lock = threading.Lock()
        self._failed = threading.Event()  # the producer is to be replaced
        self._closing = threading.Event()
        self._producer = self._connect()
        self._threads = [
            threading.Thread(target=self._keep, name="log-writer", daemon=True),
            threading.Thread(target=self._take, name="log-acknowledgements", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, topic: str, key: str | None, value: bytes, partition: int | None = None) -> "Future[Appended]":
        """Appends one record; never waits. The future holds its place once the broker has it, Unavailable if it was not
        sent, or Unacknowledged if nobody can say whether the broker has it."""
        done: Future[Appended] = Future()
        done.set_running_or_notify_cancel()
        with self._lock:
            self._waiting[done] = time.monotonic()
        try:
            self._producer.produce(
                topic, value, key, _ANY if partition is None else partition, on_delivery=self._answering(done)
            )
        except (KafkaException, BufferError) as error:  # BufferError: too many records are waiting
            if not _too_large(error):
                self._failed.set()
            self._answer(done, Unavailable(f"The log did not take a record: {error}. Send it again."))
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
        for thread in self._threads:
            thread.join()
        _end(self._producer, _CLOSE_SECONDS)

    def _connect(self) -> Producer:
        settings = {
            **self._properties,
            "bootstrap.servers": self._bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as kafka.partition_of
            "linger.ms": _LINGER_MS,
            # Kafka works on one request of a connection at a time: what would wait there goes together from here.
            "max.in.flight.requests.per.connection": 1,
            "message.max.bytes": _LARGEST_BYTES,
            "request.timeout.ms": _SEND_TIMEOUT_MS,
            "delivery.timeout.ms": _DELIVERY_TIMEOUT_MS,  # not longer: nobody waits for older records any more
            "reconnect.backoff.max.ms": 1_000,
            "log.connection.close": False,
        }
        try:
            producer = Producer(settings, logger=_log)
        except KafkaException as error:
            raise InvalidInput(f"kafka.properties are refused: {error.args[0].str()}.") from None
        try:
            known = producer.list_topics(timeout=_CONNECT_SECONDS).topics
        except KafkaException as error:
            raise Unavailable(
                f"Kafka does not answer at {self._bootstrap} ({error}). Start it, or set MATCHLOOP_KAFKA_BOOTSTRAP."
            ) from None
        for topic in self._topics:
            if topic not in known or known[topic].error is not None:
                raise Unavailable(f"Kafka at {self._bootstrap} does not have topic {topic!r}.")
        return producer

    def _take(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_LOOK_SECONDS)

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

    def _answering(self, done: "Future[Appended]") -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, record: Message) -> None:
            partition, offset = record.partition(), record.offset()
            if error is None and partition is not None and offset is not None:
                self._answer(done, Appended(partition, offset))
            else:
                self._fail(done, error)

        return delivered

    def _fail(self, done: "Future[Appended]", error: object) -> None:
        if not _too_large(error):
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


def _too_large(error: object) -> bool:
    """Whether the record is at fault, and not the producer."""
    found = error.args[0] if isinstance(error, KafkaException) else error
    return isinstance(found, KafkaError) and found.code() == KafkaError.MSG_SIZE_TOO_LARGE


def _end(producer: Producer, seconds: float) -> None:
    """Ends a producer, whose records have so long to be acknowledged; those that are left fail."""
    producer.flush(seconds)
    producer.purge()
    producer.flush(0)
