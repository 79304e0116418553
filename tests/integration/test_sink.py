"""The sink: every record once in the lake, or in a dead letter, whoever kills it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import encode
from streaming import catalogue_log, dead_letter, sink
from streaming.kafka import Log, Reader, Writer
from streaming.settings import KafkaSettings, LakeSettings
from tests.api_server import wait_until
from tests.events import decision

KAFKA = KafkaSettings(partitions=2)
_RUN = """
import sys, threading
from pathlib import Path
from feature_store.contracts.clock import SystemClock
from streaming import sink
from streaming.settings import KafkaSettings, LakeSettings
settings = LakeSettings(flush_seconds=0.01, flush_events=7)
sink.run(KafkaSettings(partitions=2), sys.argv[1], Path(sys.argv[2]), settings, SystemClock(), threading.Event())
"""


@pytest.fixture
def writer(broker: str) -> Iterator[Writer]:
    Log(KAFKA, broker).create_topics()
    made = Writer(broker)
    yield made
    made.close()


def _covers(lake: Path, log_id: str, offsets: dict[int, int]) -> bool:
    return all(sink.coverage(lake, log_id, partition) > offset for partition, offset in offsets.items())


def test_a_sink_that_is_killed_leaves_every_event_once(broker: str, writer: Writer, tmp_path: Path) -> None:
    sent: dict[int, list[int]] = {0: [], 1: []}
    log_id = Log(KAFKA, broker).log_id()
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", _RUN, broker, str(tmp_path)]) as process:
            for n in range(150):
                place = writer.send("events", str(n), encode([decision(str(n), n, ["a"])] * 2)).result()
                sent[place.partition].append(place.offset)
            # In the middle of the work, and at last when all is done.
            enough = {n: offsets[-1] - (100 if attempt < 3 else 0) for n, offsets in sent.items()}
            wait_until(partial(_covers, tmp_path, log_id, enough))
            process.kill()
    for partition, offsets in sent.items():
        expected = [offset for offset in offsets for _ in range(2)]
        assert [offset for offset, _ in sink.read_events(tmp_path, log_id, partition, 0)] == expected
        files = sorted((tmp_path / "events" / f"log={log_id}" / f"partition={partition}").glob("[0-9]*.parquet"))
        assert sorted(offset for file in files for offset in pq.read_table(file)["offset"].to_pylist()) == expected


def test_unreadable_records_of_either_topic_become_letters_and_stop_nothing(
    broker: str, writer: Writer, tmp_path: Path
) -> None:
    stop, log = threading.Event(), Log(KAFKA, broker)
    junk = [b"", b"junk", b"\x00" * (10 << 20)]
    places = [writer.send("events", None, value, 0).result() for value in junk]
    end = writer.send("events", None, encode([decision("ada", 1, ["a\n\x00:ü" * 2000])]), 0).result().offset
    writer.send("catalogue", None, b"no item").result()
    last = writer.send("catalogue", None, catalogue_log.encode_deletion("x", 1)).result().offset
    arguments = (KAFKA, broker, tmp_path, LakeSettings(flush_seconds=0.05), SystemClock(), stop)
    running = threading.Thread(target=sink.run, args=arguments)
    running.start()
    written = tmp_path / "catalogue" / f"log={log.log_id('catalogue')}" / "partition=0" / f"0-{last + 1}.parquet"
    wait_until(lambda: sink.coverage(tmp_path, log.log_id(), 0) > end and written.exists())
    with pytest.raises(Unavailable, match="Another sink writes to the lake"):
        sink.run(*arguments)
    stop.set()
    running.join()

    *_, (_, event) = sink.read_events(tmp_path, log.log_id(), 0, end)
    assert event == decision("ada", 1, ["a\n\x00:ü" * 2000])
    reader = Reader(broker, "deadletter", {0: 0})
    letters = dead_letter.pending(reader.backlog(), {})
    reader.close()
    offsets = {place.offset: value[: dead_letter.MAX_BYTES] for place, value in zip(places, junk, strict=True)}
    assert {letter.offset: letter.record for letter in letters if letter.source == "events"} == offsets
    assert [letter.record for letter in letters if letter.source == "catalogue"] == [b"no item"]


def test_the_backlog_of_an_empty_topic_is_nothing(broker: str, writer: Writer) -> None:
    Log(KafkaSettings(events_topic="quiet", partitions=3), broker).create_topics()
    reader = Reader(broker, "quiet", dict.fromkeys(range(3), 0))
    assert list(reader.backlog()) == []
    reader.close()
