"""What of the events topic is believed: one rule for the updater, the sink and a replay, so that they hold the same."""

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event, decode, event_time
from streaming.kafka import Record

MAX_AHEAD_MS = 300_000


def events_of(record: Record) -> list[Event]:
    """The events of a record.

    Raises InvalidInput if it holds none of ours, or if one of them claims a time more than MAX_AHEAD_MS after the
    record's timestamp: stream time never goes back, so believing it would close every window of the partition. The
    topic has Kafka stamp records itself (LogAppendTime); a broker that does not support that keeps the producer's.
    """
    events = decode(record.value)
    latest = max((event_time(event) for event in events), default=0)
    if latest > record.timestamp + MAX_AHEAD_MS:
        raise InvalidInput(
            f"A record claims the time {latest} ms, {(latest - record.timestamp) / 1000:.0f} s after the log's own. "
            f"At most {MAX_AHEAD_MS // 1000} s are believed. Set the clock of the host that wrote it."
        )
    return events
