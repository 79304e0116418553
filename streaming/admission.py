"""What of the events topic is believed: one rule for the updater, the sink and a replay, so that they hold the same."""

import msgspec
from prometheus_client import Counter

from feature_store.contracts.events import Event, Feedback, decode, event_time
from streaming.kafka import Record

MAX_AHEAD_MS = 300_000
AHEAD = Counter(
    "matchloop_log_events_ahead",
    "Events whose time was more than 5 minutes after the log's own and was held back: a host's clock is ahead, or a "
    "broker's behind",
)


def events_of(record: Record) -> list[Event]:
    """The events of a record. Raises InvalidInput if it holds none of ours.

    A time more than MAX_AHEAD_MS after the record's timestamp is held back to that. Stream time never goes back:
    believing it would close every window of the partition. Refusing the event would lose it, and which of the two
    clocks is wrong cannot be told here. The topic has Kafka stamp records itself (LogAppendTime); a broker that does
    not support that keeps the producer's stamp.
    """
    latest = max(record.timestamp, 0) + MAX_AHEAD_MS
    return [event if event_time(event) <= latest else _held_back(event, latest) for event in decode(record.value)]


def _held_back(event: Event, latest: int) -> Event:
    AHEAD.inc()
    if isinstance(event, Feedback):
        return msgspec.structs.replace(event, received=latest)
    return msgspec.structs.replace(event, time=latest)
