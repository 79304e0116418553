"""Records of the events topic."""

import msgspec
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event, Feedback, Switch, Tick, decode, encode, event_time

FEEDBACK = Feedback(id="e", decision="d", user="u", item="ä\n", type="click", value=1.0, time=3, received=9)


def test_what_is_written_is_read_back() -> None:
    events: list[Event] = [FEEDBACK, Tick(time=5), Switch(learning=False, time=6)]
    assert decode(encode(events)) == events


def test_stream_time_is_the_servers_not_the_clients() -> None:
    assert event_time(FEEDBACK) == 9
    assert event_time(Tick(time=5)) == 5


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "is not an event record"),
        (b"\xc1junk", "is not an event record"),
        (b"{}", "is not an event record"),
        (msgspec.msgpack.encode((1, [])), "schema version 1, this program reads 2"),
        (msgspec.msgpack.encode((2, [{"kind": "tick", "time": "soon"}])), "breaks the event schema"),
        (msgspec.msgpack.encode((2, [{"kind": "poem"}])), "breaks the event schema"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(value: bytes, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        decode(value)


@pytest.mark.parametrize("value", [b"\x92\x02\x91\x82\xa4kind\xa4\x80ick", b"\x92\x02" + b"\x91" * 100_000])
def test_text_that_is_not_utf8_and_bottomless_nesting_are_refused_like_any_junk(value: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"is not an event record|breaks the event schema"):
        decode(value)
