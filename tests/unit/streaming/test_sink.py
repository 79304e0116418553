"""What the lake tells a reader, without a log."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Event, Tick, encode
from streaming import lake_files
from streaming.dead_letter import Outbox
from streaming.kafka import Record, Writer
from streaming.lake_events import coverage, learning_at, read_events
from streaming.lake_rows import EVENT_TOPIC
from streaming.sink import PartitionSink
from tests.events import decision


def _write(lake: Path, start: int, end: int, *rows: dict[str, Any]) -> None:
    folder = lake / "events" / "log=L" / "partition=0"
    folder.mkdir(parents=True, exist_ok=True)
    complete = [{"position": 0, "time": 1, **row} for row in rows]
    pq.write_table(pa.Table.from_pylist(complete, schema=EVENTS), folder / f"{start}-{end}.parquet")


def test_the_bandit_learns_as_the_last_switch_before_the_offset_says(tmp_path: Path) -> None:
    _write(tmp_path, 0, 10, {"offset": 3, "kind": "tick"}, {"offset": 5, "kind": "switch", "learning": False})
    _write(tmp_path, 10, 20, {"offset": 12, "kind": "tick"})
    _write(tmp_path, 20, 30, {"offset": 25, "kind": "switch", "learning": True}, {"offset": 26, "kind": "tick"})
    found = {offset: learning_at(tmp_path, "L", 0, offset) for offset in (0, 5, 6, 20, 25, 26, 40)}
    assert found == {0: True, 5: True, 6: False, 20: False, 25: False, 26: True, 40: True}
    assert learning_at(tmp_path, "another log", 0, 40)


@pytest.fixture
def outbox() -> Outbox:
    """Nothing here becomes a letter."""
    return Outbox(Writer.__new__(Writer), "dead")


def _files(lake: Path) -> list[str]:
    folder = lake / "events" / "log=L" / "partition=0"
    return [one.path.name for one in lake_files.all_stretches(folder)]


def _take(sink: PartitionSink, offset: int, event: Event) -> None:
    sink.take(Record(0, offset, None, encode([event]), 1_000))


def test_ticks_make_no_files_and_are_in_the_next_one(tmp_path: Path, outbox: Outbox) -> None:
    sink = PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox)
    for offset in range(3):
        _take(sink, offset, Tick(time=offset))
        assert sink.flush()
        assert not sink.flush()
    assert _files(tmp_path) == []
    assert coverage(tmp_path, "L", 0) == 3
    again = PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox)  # the sink was killed
    assert again.next == 3
    _take(again, 3, decision("u", 5, ["a"]))
    assert again.flush()
    assert _files(tmp_path) == ["0-4.parquet"]
    ticks = [(n, Tick(time=n)) for n in range(3)]
    assert list(read_events(tmp_path, "L", 0, 0)) == [*ticks, (3, decision("u", 5, ["a"]))]


def test_a_torn_file_at_the_end_is_written_again(tmp_path: Path, outbox: Outbox) -> None:
    sink = PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox)
    for offset in range(2):
        _take(sink, offset, decision("u", offset, ["a"]))
        sink.flush()
    torn = tmp_path / "events" / "log=L" / "partition=0" / "1-2.parquet"
    torn.write_bytes(b"")
    again = PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox)
    assert again.next == 1
    _take(again, 1, decision("u", 1, ["a"]))
    again.flush()
    assert [offset for offset, _ in read_events(tmp_path, "L", 0, 0)] == [0, 1]


def test_what_the_log_has_lost_is_marked(tmp_path: Path, outbox: Outbox) -> None:
    sink = PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox)
    _take(sink, 0, decision("u", 0, ["a"]))
    _take(sink, 1, Tick(time=1))
    sink.skip_to(9)
    _take(sink, 9, Tick(time=3))
    sink.flush()
    assert _files(tmp_path) == ["0-2.parquet", "2-9.lost"]
    assert [offset for offset, _ in read_events(tmp_path, "L", 0, 0)] == [0, 1, 9]
    assert PartitionSink(tmp_path, EVENT_TOPIC, "L", 0, outbox).next == 10
