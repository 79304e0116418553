"""Letters: each place once, and what of them may be appended again."""

import msgspec
import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event, Tick, encode
from streaming.dead_letter import MAX_BYTES, Letter, _cut, by_reason, decode, pending, plan_retry
from streaming.kafka import Record
from tests.events import decision, feedback, interaction

D = decision("ada", 1000, ["a"])
CLOCK = ManualClock(50_000)


def _letter(offset: int, event: Event | None = None, record: bytes | None = None, reason: str = "why") -> Letter:
    return Letter(log="x", partition=1, offset=offset, namespace="r-1", reason=reason, event=event, record=record)


def _records(*letters: Letter | bytes) -> list[Record]:
    values = [letter if isinstance(letter, bytes) else msgspec.msgpack.encode(letter) for letter in letters]
    return [Record(0, n, None, value, 0) for n, value in enumerate(values)]


def test_a_place_counts_once_whoever_wrote_the_letter() -> None:
    one, other = _letter(3, feedback(D, "a", event="1")), _letter(3, feedback(D, "a", event="2"))
    by_another = msgspec.structs.replace(one, namespace="r-2")
    assert pending(_records(one, other, one, by_another), {}) == [one, other]


def test_a_retried_letter_is_settled_also_when_it_is_written_again_later() -> None:
    one, other = _letter(3, feedback(D, "a")), _letter(4, record=b"junk")
    retried = msgspec.structs.replace(one, retried=True)
    assert pending(_records(one, other, retried, one), {}) == [other]


def test_there_are_no_letters_of_who_was_erased() -> None:
    before, after = feedback(D, "a", received=5), feedback(D, "b", received=6)
    letters = _letter(1, before), _letter(2, after), _letter(3, record=b"junk"), _letter(4, Tick(time=1))
    assert pending(_records(*letters), {D.user: 5}) == [*letters[1:]]


def test_what_is_no_letter_is_passed_over() -> None:
    old = msgspec.msgpack.encode(msgspec.structs.replace(_letter(1, Tick(time=1)), version=1))
    assert pending(_records(b"junk", b"", old), {}) == []
    with pytest.raises(InvalidInput, match="A dead letter has version 1, this program reads 2"):
        decode(old)
    with pytest.raises(InvalidInput, match="A record of 4 bytes is not a dead letter"):
        decode(b"junk")


def test_reasons_are_in_order_of_how_often_and_their_letters_of_their_places() -> None:
    letters = [_letter(9, record=b"", reason="rare"), _letter(8, Tick(time=1)), _letter(2, Tick(time=2))]
    found = by_reason(letters)
    assert [(one.reason, [letter.offset for letter in one.letters]) for one in found] == [
        ("why", [2, 8]),
        ("rare", [9]),
    ]


def test_whole_events_and_records_readable_by_now_are_retried_and_nothing_else() -> None:
    whole = _letter(1, feedback(D, "a"))
    readable = _letter(2, record=encode([D]))
    junk, future = _letter(3, record=b"junk"), _letter(4, record=encode([Tick(time=10**9)]))
    cut = msgspec.structs.replace(_letter(5, record=encode([D])), cut=True)
    item = msgspec.structs.replace(_letter(6, record=b"x"), source="catalogue")
    plan = plan_retry([whole, readable, junk, future, cut, item], 60, CLOCK)
    assert plan.appended == [whole, readable, future]
    assert [letter for letter, _ in plan.refused] == [junk, cut, item]
    whys = [why for _, why in plan.refused]
    assert "is not an event record" in whys[0]
    assert f"only the first {MAX_BYTES} bytes were kept" in whys[1]
    assert "send it to the API again" in whys[2]


def test_feedback_that_will_be_late_is_counted() -> None:
    letters = [_letter(1, feedback(D, "a")), _letter(2, feedback(decision("ada", 20_000, ["a"]), "a")), _letter(3, D)]
    letters.append(_letter(4, interaction("ada", "a", received=0)))  # belongs to no decision: never late
    assert plan_retry(letters, 49, CLOCK).late == 1
    assert plan_retry(letters, 50, CLOCK).late == 0


def test_what_kafka_would_not_take_is_cut() -> None:
    large = feedback(D, "x" * MAX_BYTES)
    short = _cut(_letter(1, large))
    assert (short.event, short.cut, len(short.record or b"")) == (None, True, MAX_BYTES)
    assert len(_cut(_letter(1, record=b"x" * (MAX_BYTES + 1))).record or b"") == MAX_BYTES
    for fits in (_letter(1, D), _letter(1, record=b"x" * MAX_BYTES)):
        assert _cut(fits) is fits
