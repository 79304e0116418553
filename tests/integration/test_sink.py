"""The sink: every record once in the lake, or in a dead letter, whoever kills it."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import encode
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from streaming import catalogue_log, dead_letter, lake_events, sink
from streaming.kafka import Log, Reader, Writer
from streaming.settings import KafkaSettings, LakeSettings
from tests.api_server import wait_until
from tests.events import decision

KAFKA = KafkaSettings(partitions=2)
_RUN = """
import sys, threading
from pathlib import Path
import redis
from feature_store.contracts.clock import SystemClock
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from streaming import sink
from streaming.settings import KafkaSettings, LakeSettings
settings = LakeSettings(flush_seconds=0.01, flush_events=7)
online = OnlineStore(redis.Redis.from_url(sys.argv[3]), RedisSettings())
sink.run(
    KafkaSettings(partitions=2), sys.argv[1], Home(Path(sys.argv[2])), online, settings, SystemClock(),
    threading.Event(),
)
"""


@pytest.fixture
def writer(broker: str) -> Iterator[Writer]:
    Log(KAFKA, broker).create_topics()
    made = Writer(broker)
    yield made
    made.close()


@pytest.fixture
def online(redis_url: str) -> Iterator[OnlineStore]:
    with redis.Redis.from_url(redis_url) as client:
        yield OnlineStore(client, RedisSettings())


def _covers(lake: Path, log_id: str, offsets: dict[int, int]) -> bool:
    return all(lake_events.coverage(lake, log_id, partition) > offset for partition, offset in offsets.items())


def test_a_sink_that_is_killed_leaves_every_event_once(
    broker: str, redis_url: str, writer: Writer, tmp_path: Path
) -> None:
    sent: dict[int, list[int]] = {0: [], 1: []}
    log_id = Log(KAFKA, broker).log_id()
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", _RUN, broker, str(tmp_path), redis_url]) as process:
            for n in range(150):
                place = writer.send("events", str(n), encode([decision(str(n), n, ["a"])] * 2)).result()
                sent[place.partition].append(place.offset)
            # In the middle of the work, and at last when all is done.
            enough = {n: offsets[-1] - (100 if attempt < 3 else 0) for n, offsets in sent.items()}
            wait_until(partial(_covers, tmp_path / "lake", log_id, enough))
            process.kill()
    for partition, offsets in sent.items():
        expected = [offset for offset in offsets for _ in range(2)]
        assert [offset for offset, _ in lake_events.read_events(tmp_path / "lake", log_id, partition, 0)] == expected
        files = sorted(
            (tmp_path / "lake" / "events" / f"log={log_id}" / f"partition={partition}").glob("[0-9]*.parquet")
        )
        assert sorted(offset for file in files for offset in pq.read_table(file)["offset"].to_pylist()) == expected


def test_unreadable_records_of_either_topic_become_letters_and_stop_nothing(
    broker: str, online: OnlineStore, writer: Writer, tmp_path: Path
) -> None:
    stop, log = threading.Event(), Log(KAFKA, broker)
    junk = [b"", b"junk", b"\x00" * (10 << 20)]
    places = [writer.send("events", None, value, 0).result() for value in junk]
    end = writer.send("events", None, encode([decision("ada", 1, ["a\n\x00:ü" * 2000])]), 0).result().offset
    writer.send("catalogue", None, b"no item").result()
    last = writer.send("catalogue", None, catalogue_log.encode_deletion("x", 1)).result().offset
    arguments = (KAFKA, broker, Home(tmp_path), online, LakeSettings(flush_seconds=0.05), SystemClock(), stop)
    running = threading.Thread(target=sink.run, args=arguments)
    running.start()
    written = (
        tmp_path / "lake" / "catalogue" / f"log={log.log_id('catalogue')}" / "partition=0" / f"0-{last + 1}.parquet"
    )
    wait_until(lambda: lake_events.coverage(tmp_path / "lake", log.log_id(), 0) > end and written.exists())
    with pytest.raises(Unavailable, match="Another sink writes to the lake"):
        sink.run(*arguments)
    stop.set()
    running.join()

    *_, (_, event) = lake_events.read_events(tmp_path / "lake", log.log_id(), 0, end)
    assert event == decision("ada", 1, ["a\n\x00:ü" * 2000])
    reader = Reader(broker, "deadletter", {0: 0})
    letters = dead_letter.pending(reader.backlog(), {})
    reader.close()
    offsets = {place.offset: value[: dead_letter.MAX_BYTES] for place, value in zip(places, junk, strict=True)}
    assert {letter.offset: letter.record for letter in letters if letter.source == "events"} == offsets
    assert [letter.record for letter in letters if letter.source == "catalogue"] == [b"no item"]


def test_a_partition_that_cannot_be_written_stops_only_itself_and_recovers(
    broker: str, online: OnlineStore, tmp_path: Path
) -> None:
    kafka = KafkaSettings(partitions=2, events_topic="half", catalogue_topic="half-items", deadletter_topic="half-dead")
    log, health, stop = Log(kafka, broker), sink.new_health(), threading.Event()
    log.create_topics()
    log_id = log.log_id()
    in_the_way = tmp_path / "lake" / "events" / f"log={log_id}" / "partition=0"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where the folder should be")
    settings = LakeSettings(flush_seconds=0.05)
    arguments = (kafka, broker, Home(tmp_path), online, settings, SystemClock(), stop, health)
    running = threading.Thread(target=sink.run, args=arguments)
    running.start()
    try:
        with contextlib.closing(Writer(broker)) as writer:
            junk = writer.send("half", None, b"junk", 0).result()
            ends = {n: writer.send("half", None, encode([decision("u", 1, ["a"])]), n).result().offset for n in (0, 1)}
            wait_until(lambda: _covers(tmp_path / "lake", log_id, {1: ends[1]}), 120)
            wait_until(lambda: [(part.of, part.partition) for part in health.quarantined()] == [("half", 0)], 120)
            assert sink.QUARANTINED.labels("half", "0")._value.get() == 1
            more = writer.send("half", None, encode([decision("u", 2, ["a"])]), 1).result().offset
            wait_until(lambda: _covers(tmp_path / "lake", log_id, {1: more}), 120)
            in_the_way.unlink()
            wait_until(lambda: _covers(tmp_path / "lake", log_id, {0: ends[0]}), 120)
            wait_until(lambda: not health.quarantined(), 120)
    finally:
        stop.set()
        running.join()
    assert [offset for offset, _ in lake_events.read_events(tmp_path / "lake", log_id, 0, 0)] == [ends[0]]
    assert [offset for offset, _ in lake_events.read_events(tmp_path / "lake", log_id, 1, 0)] == [ends[1], more]
    with contextlib.closing(Reader(broker, "half-dead", {0: 0})) as reader:
        assert [letter.offset for letter in dead_letter.pending(reader.backlog(), {})] == [junk.offset]


def test_the_backlog_of_an_empty_topic_is_nothing(broker: str, writer: Writer) -> None:
    Log(KafkaSettings(events_topic="quiet", partitions=3), broker).create_topics()
    reader = Reader(broker, "quiet", dict.fromkeys(range(3), 0))
    assert list(reader.backlog()) == []
    reader.close()
