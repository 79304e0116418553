"""Whether this client may do in Kafka what MatchLoop does there: for `matchloop doctor`."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Tick, encode
from streaming.kafka import Appended, Log, Reader

NEEDED = ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS")  # on each topic, as Kafka calls its operations
_SECONDS = 10.0
_POLL_MS = 100

_Found = TypeVar("_Found")


def missing_rights(told: Mapping[str, Collection[str]]) -> list[str]:
    """What is lacking of what has to be done on topics, such as WRITE on 'events'. told: by topic, what may be done
    there; nothing where the cluster does not tell."""
    return [f"{right} on {topic!r}" for topic, may in told.items() if may for right in NEEDED if right not in may]


def round_trip(log: Log, clock: Clock) -> float:
    """Appends a tick to the log, and reads it back; the seconds that took. Raises Unavailable, naming the step."""
    topic, began = log.settings.topics.events, time.monotonic()
    with contextlib.closing(_step("written", topic, lambda: log.writer([topic]))) as writer:
        value = encode([Tick(time=clock.now_ms())])
        place = _step("written", topic, lambda: writer.send(topic, None, value, 0).result())
    with contextlib.closing(_step("read", topic, lambda: log.reader(topic, {0: place.offset}))) as reader:
        _step("read", topic, lambda: _read(reader, place))
    return time.monotonic() - began


def _read(reader: Reader, place: Appended) -> None:
    deadline = time.monotonic() + _SECONDS
    while not any(record.offset == place.offset for record in reader.poll(_POLL_MS)):
        if time.monotonic() > deadline:
            raise Unavailable(f"it did not come within {_SECONDS:.0f} s")


def _step(done: str, topic: str, call: Callable[[], _Found]) -> _Found:
    try:
        return call()
    except Unavailable as error:
        raise Unavailable(f"{topic!r} cannot be {done}: {error}") from None
