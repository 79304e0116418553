"""What of the topic is believed: all of it is refused in order, or the lake can hold it."""

import contextlib
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import (
    SCHEMA_VERSION,
    Event,
    Feedback,
    Switch,
    Tick,
    Withdrawal,
    encode,
    event_time,
)
from streaming.admission import AHEAD, MAX_AHEAD_MS, events_of
from streaming.kafka import Record
from streaming.lake_rows import event_rows
from tests.events import decision, feedback

NOW = 1_700_000_000_000
D = decision("ada", NOW, ["a"])


def _record(value: bytes, timestamp: int = NOW) -> Record:
    return Record(0, 7, None, value, timestamp)


@pytest.mark.parametrize(
    "event",
    [
        decision("ada", NOW, ["a"]),
        feedback(D, "a", received=NOW),
        Withdrawal(decision=D.id, user=D.user, time=NOW),
        Tick(time=NOW),
        Switch(learning=False, time=NOW),
    ],
)
def test_a_clock_may_be_a_little_ahead_and_counts_as_no_more_than_that(event: Event) -> None:
    """Whether the host is ahead or the broker behind: nothing is dropped, and the time goes with the log's own."""
    believed = [(events_of(_record(encode([event]), NOW - behind)), behind) for behind in (0, 300_000, 300_001, NOW)]
    for (found,), behind in believed:
        assert event_time(found) == min(NOW, NOW - behind + MAX_AHEAD_MS)
        name = "received" if isinstance(event, Feedback) else "time"
        assert msgspec.structs.replace(found, **{name: NOW}) == event


def test_what_is_held_back_is_counted() -> None:
    before = AHEAD._value.get()
    assert events_of(_record(encode([D, Tick(time=NOW * 2)]))) == [D, Tick(time=NOW + MAX_AHEAD_MS)]
    assert AHEAD._value.get() == before + 1


def test_what_a_client_says_about_the_time_is_no_matter() -> None:
    told: Feedback = msgspec.structs.replace(feedback(D, "a", received=NOW), time=2**46)
    assert events_of(_record(encode([told]))) == [told]


BROKEN_FIELDS: list[dict[str, Any]] = [
    {"time": -1}, {"time": 2**47}, {"shown": -1}, {"shown": 2**31}, {"clusters": [2**31]}, {"edges": [2**63]},
    {"offsets": [-1]}, {"items": [b"\xff"]}, {"items": None}, {"kind": "poem"}, {"weights": ["1"]},
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN_FIELDS)
def test_fields_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    raw = msgspec.to_builtins(D, builtin_types=(bytes,))
    events_of(_record(msgspec.msgpack.encode((SCHEMA_VERSION, [raw]))))
    with pytest.raises(InvalidInput, match=r"A record of .* (is not an event record|breaks the event schema)"):
        events_of(_record(msgspec.msgpack.encode((SCHEMA_VERSION, [raw | change]))))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "A record of 0 bytes is not an event record"),
        (b"\x00junk\xff" * 1000, "is not an event record"),
        (msgspec.msgpack.encode((1, [{"kind": "tick", "time": 1}])), "schema version 1, this program reads 2"),
        (msgspec.msgpack.encode((SCHEMA_VERSION, [{"kind": "tick"}])), "breaks the event schema"),
        (b"x" * (10 << 20), "A record of 10485760 bytes is not an event record"),
    ],
)
def test_what_is_no_event_record_is_refused_with_the_reason(value: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        events_of(_record(value))


TIMES, COUNTS, MASKS = st.integers(0, 2**47 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)
WORDS = st.one_of(st.text(max_size=5), st.sampled_from(["a\nb", "\x00", ":", "ü" * 10_000, "1-2.parquet"]))


@settings(deadline=None)  # the first table loads Arrow's kernels
@given(WORDS, TIMES, COUNTS, MASKS, st.floats())
def test_whatever_is_believed_the_lake_holds_unchanged(
    word: str, time: int, count: int, mask: int, number: float
) -> None:
    odd = msgspec.structs.replace(
        D, time=time, shown=count, items=[word], surface=word, clusters=[count], edges=[mask], offsets=[mask],
        weights=[number],
    )  # fmt: skip
    told = msgspec.structs.replace(feedback(D, "a"), item=word, type=word, value=number, time=time, received=time)
    record = _record(encode([odd, told]), timestamp=2**47)
    rows = pa.Table.from_pylist(event_rows(record), EVENTS).to_pylist()
    assert repr([rows[0]["items"], rows[0]["shown"], rows[0]["edges"], rows[0]["weights"]]) == repr(
        [odd.items, odd.shown, odd.edges, odd.weights]
    )
    assert repr([rows[1]["item"], rows[1]["value"], rows[1]["received"]]) == repr([word, number, time])


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_events(value: bytes) -> None:
    with contextlib.suppress(InvalidInput):  # and nothing else
        assert isinstance(events_of(_record(value)), list)
