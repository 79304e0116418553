"""The dead-letter topic: events that could not be processed, with the reason, never silently dropped.

A letter names the place in the log that it came from; after a crash the same letter may be written twice, and readers
take it once by that place.
"""

import msgspec

from feature_store.contracts.events import Event
from streaming.kafka import Writer

SCHEMA_VERSION = 1


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One event, or one record that holds no events."""

    version: int = SCHEMA_VERSION
    log: str
    partition: int
    offset: int
    namespace: str
    reason: str
    event: Event | None  # None: the record could not be read
    record: bytes | None  # the unreadable record, cut to MAX_RECORD bytes


MAX_RECORD = 10_000
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Letter)


def send(writer: Writer, topic: str, letters: list[Letter]) -> None:
    """Writes letters and waits until the log has them. Raises Unavailable if it does not take one."""
    for sent in [writer.send(topic, None, _encoder.encode(letter)) for letter in letters]:
        sent.result()


def decode(value: bytes) -> Letter:
    """Reads a letter."""
    return _decoder.decode(value)
