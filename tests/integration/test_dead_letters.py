"""`matchloop deadletter`, on a real broker: listed, appended again once, and never a second time."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.events import Event, decode
from streaming import dead_letter
from streaming.dead_letter import Letter
from streaming.kafka import Log, Reader, Writer
from streaming.settings import KafkaSettings
from tests.command_line import matchloop
from tests.events import decision, feedback

KAFKA = KafkaSettings(partitions=2)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def log(broker: str) -> str:
    Log(KAFKA, broker).create_topics()
    now = SystemClock().now_ms()
    fresh, old = decision("ada", now, ["a"]), decision("bob", 1000, ["a"])
    traced = replace(feedback(fresh, "a", received=now), trace=TRACE)
    letters = [
        _letter(5, "its decision is not in the log before it", traced),
        _letter(9, "its decision is not in the log before it", feedback(fresh, "b\n", event="2", received=now)),
        _letter(2, "event type 'poem' is not declared", feedback(old, "a", received=now)),
        _letter(1, "A record of 4 bytes is not an event record", None, b"junk"),
    ]
    with closing(Writer(broker)) as writer:
        dead_letter.send(writer, KAFKA.topics.deadletter, [*letters, *letters])
    return broker


def _letter(offset: int, reason: str, event: Event | None, record: bytes | None = None) -> Letter:
    return Letter(log="x", partition=1, offset=offset, namespace="r-1", reason=reason, event=event, record=record)


def test_letters_are_listed_and_retried_once(log: str, redis_url: str, tmp_path: Path) -> None:
    variables = {
        "MATCHLOOP_KAFKA_BOOTSTRAP": log,
        "MATCHLOOP_REDIS_URL": redis_url,
        "MATCHLOOP_HOME": str(tmp_path),
    }

    def deadletter(*words: str) -> Any:
        return json.loads(matchloop("deadletter", *words, "--json", **variables))

    listed = deadletter("list", "--limit", "2")
    assert listed["letters"] == 4
    first, _ = listed["reasons"]
    assert (first["reason"], first["count"]) == ("its decision is not in the log before it", 2)
    assert (first["first"]["offset"], first["last"]["offset"]) == (5, 9)
    assert '"item":"a"' in first["example"]
    assert first["trace_id"] == TRACE
    assert f"trace_id {TRACE}\n" in matchloop("deadletter", "list", **variables)

    assert deadletter("retry", "--reason", "is not in the log", "--dry-run")["appended"] == 2
    assert deadletter("list")["letters"] == 4
    counts = {"chosen": 2, "appended": 2, "late": 0, "dry_run": False, "refused": []}
    assert deadletter("retry", "--reason", "is not in the log") == counts
    rest = deadletter("retry", "--all")
    assert (rest["chosen"], rest["appended"], rest["late"], len(rest["refused"])) == (2, 1, 1, 1)
    again = deadletter("retry", "--all")
    assert (again["chosen"], again["appended"]) == (1, 0)

    with closing(Reader(log, KAFKA.topics.events, {0: 0, 1: 0})) as reader:
        events = [event for record in reader.backlog() for event in decode(record.value)]
    assert sorted(event.item for event in events if hasattr(event, "item")) == ["a", "a", "b\n"]
