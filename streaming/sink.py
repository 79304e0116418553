"""The log as Parquet files: events and catalogue changes, each exactly once.

A file is named by what it holds, `<start>-<end>.parquet` with end exclusive, is written aside and renamed; the next
offset is the end of the last file. A sink that died writes the same file again, or goes on behind it. Records that hold
nothing readable are left out, and go to the dead-letter topic.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contracts.catalogue import Attributes, Item
from feature_store.contracts.clock import Clock
from feature_store.contracts.columns import CATALOGUE, EVENTS
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.events import (
    Decision,
    Erasure,
    Event,
    Feedback,
    Profile,
    Switch,
    Tick,
    Withdrawal,
    encode,
)
from streaming import catalogue_log, dead_letter
from streaming.admission import events_of
from streaming.dead_letter import Letter, Source
from streaming.kafka import Log, Reader, Record, Writer
from streaming.settings import KafkaSettings, LakeSettings

_KINDS: dict[type[Event], str] = {
    Decision: "decision",
    Feedback: "feedback",
    Withdrawal: "withdrawal",
    Profile: "profile",
    Erasure: "erasure",
    Tick: "tick",
    Switch: "switch",
}
_TYPES = {kind: event for event, kind in _KINDS.items()}
_FIELDS = {event: msgspec.structs.fields(event) for event in _KINDS}
_attributes_decoder = msgspec.json.Decoder(Attributes)
_POLL_MS = 200
_DRAIN_POLLS = 25
_DRAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_FETCH_WAIT_MS = 500
_MAX_RECORDS = 1000
_PACE_SECONDS = 0.5  # between two looks that leave nothing unread: nobody waits for what is not in a file yet


class _Topic(NamedTuple):
    """How the records of a topic become rows."""

    source: Source
    schema: pa.Schema
    rows: Callable[[Record], list[dict[str, Any]]]


def run(
    kafka: KafkaSettings, bootstrap: str, lake: Path, settings: LakeSettings, clock: Clock, stop: threading.Event
) -> None:
    """Writes both topics to the lake until stopped, then what is left. Raises Unavailable if another sink is at work on
    the lake: two would write the same events under different names."""
    log = Log(kafka, bootstrap)
    events, catalogue = log.log_id(), log.log_id(kafka.catalogue_topic)
    with _alone(lake), contextlib.closing(Writer(bootstrap)) as writer:
        bury = partial(dead_letter.send, writer, kafka.deadletter_topic)
        pause = min(_PACE_SECONDS, settings.flush_seconds / 4)
        sinks = [
            TopicSink(bootstrap, kafka.events_topic, log.partitions(), lake, events, _EVENTS, settings, bury),
            TopicSink(bootstrap, kafka.catalogue_topic, 1, lake, catalogue, _CATALOGUE, settings, bury),
        ]
        try:
            while not stop.is_set():
                read = [sink.step(clock.now_ms(), _POLL_MS // len(sinks)) for sink in sinks]
                if max(read) < _MAX_RECORDS:
                    stop.wait(pause)
            for sink in sinks:
                sink.drain()
        finally:
            for sink in sinks:
                sink.close()


class TopicSink:
    """One topic's way into the lake."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        lake: Path,
        log_id: str,
        kind: _Topic,
        settings: LakeSettings,
        bury: Callable[[list[Letter]], None],
    ) -> None:
        """bury: writes letters for the records that hold no rows."""
        self._folders = {p: _folder(lake / kind.source, log_id, p) for p in range(partitions)}
        self._next = {p: _covered(folder) for p, folder in self._folders.items()}
        self._start = dict(self._next)
        self._rows: dict[int, list[dict[str, Any]]] = {p: [] for p in self._folders}
        self._kind = kind
        self._log_id = log_id
        self._settings = settings
        self._bury = bury
        self._flushed_at = 0
        self._reader = Reader(bootstrap, topic, self._next, _FETCH_WAIT_MS)

    def step(self, now_ms: int, wait_ms: int) -> int:
        """Reads what has come, and writes files when it is time. Returns the number of records read."""
        read = self._read(wait_ms)
        waiting = max(len(rows) for rows in self._rows.values())
        due = now_ms - self._flushed_at >= self._settings.flush_seconds * 1000
        if due or waiting >= self._settings.flush_events:
            self.flush()
            self._flushed_at = now_ms
        return read

    def drain(self) -> None:
        """Reads until nothing more comes, a while at most, and writes it all: an orderly end loses nothing."""
        for _ in range(_DRAIN_POLLS):
            if not self._read(_POLL_MS):
                break
        self.flush()

    def _read(self, wait_ms: int) -> int:
        records = self._reader.poll(wait_ms, _MAX_RECORDS)
        letters = []
        for record in records:
            try:
                self._rows[record.partition] += self._kind.rows(record)
            except InvalidInput as error:
                letters.append(self._letter(record, str(error)))
            self._next[record.partition] = record.offset + 1
        self._bury(letters)
        return len(records)

    def _letter(self, record: Record, reason: str) -> Letter:
        return Letter(
            source=self._kind.source,
            log=self._log_id,
            partition=record.partition,
            offset=record.offset,
            namespace=None,
            reason=reason,
            event=None,
            record=record.value,
        )

    def flush(self) -> None:
        """Writes what waits."""
        for partition, folder in self._folders.items():
            start, end = self._start[partition], self._next[partition]
            if end > start:
                folder.mkdir(parents=True, exist_ok=True)
                draft = folder / f".{start}-{end}.{os.getpid()}"
                pq.write_table(
                    pa.Table.from_pylist(self._rows[partition], self._kind.schema), draft, compression="zstd"
                )
                draft.rename(folder / f"{start}-{end}.parquet")
                self._start[partition], self._rows[partition] = end, []

    def close(self) -> None:
        """Disconnects."""
        self._reader.close()


def coverage(lake: Path, log_id: str, partition: int) -> int:
    """The first offset of the events topic that the lake does not hold."""
    return _covered(_folder(lake / "events", log_id, partition))


def drain(log: Log, lake: Path, clock: Clock) -> list[int]:
    """Marks the present end of the log with ticks and waits until the lake holds it. Returns the offset behind it, per
    partition. Raises Unavailable, naming what is missing, after a minute."""
    ends, log_id = log.append_everywhere(encode([Tick(time=clock.now_ms())])), log.log_id()
    deadline = time.monotonic() + _DRAIN_SECONDS
    while behind := {p: end for p, end in enumerate(ends) if coverage(lake, log_id, p) < end}:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"After {_DRAIN_SECONDS:.0f} s the lake {lake} does not hold partitions {sorted(behind)} up to their "
                f"offsets {list(behind.values())}. Is the sink running?"
            )
        time.sleep(_LOOK_SECONDS)
    return ends


def read_events(lake: Path, log_id: str, partition: int, start: int) -> Iterator[tuple[int, Event]]:
    """(offset, event) of a partition from the offset on, in log order, exactly as they were in the log."""
    for file_start, file_end, path in _files(_folder(lake / "events", log_id, partition)):
        if file_end > start:
            rows = pq.read_table(path, schema=EVENTS).to_pylist()
            for row in rows:
                if row["offset"] >= max(start, file_start):
                    yield row["offset"], event_of(row)


def learning_at(lake: Path, log_id: str, partition: int, offset: int) -> bool:
    """Whether the bandit learns from the offset of the partition on: what the last switch before it said."""
    for start, _, path in reversed(_files(_folder(lake / "events", log_id, partition))):
        if start < offset:
            switches = pq.read_table(path, columns=["offset", "learning"]).filter(
                pc.field("learning").is_valid() & (pc.field("offset") < offset)
            )
            said = switches["learning"]
            if len(said):
                return bool(said[-1].as_py())
    return True


def _event_rows(record: Record) -> list[dict[str, Any]]:
    return [{"offset": record.offset, "position": i, **row_of(event)} for i, event in enumerate(events_of(record))]


def row_of(event: Event) -> dict[str, Any]:
    """The event as a row of the lake, without its place."""
    row = {"kind": _KINDS[type(event)], **msgspec.structs.asdict(event)}
    if isinstance(event, Profile):
        row["attributes"] = msgspec.json.encode(event.attributes).decode()
    return row


def event_of(row: dict[str, Any]) -> Event:
    """The event that a row of the lake was made from."""
    event = _TYPES[row["kind"]]
    fields = {f.encode_name: row[f.encode_name] for f in _FIELDS[event]}
    if event is Profile:
        fields["attributes"] = _attributes_decoder.decode(fields["attributes"])
    return event(**fields)


def _catalogue_rows(record: Record) -> list[dict[str, Any]]:
    change = catalogue_log.decode(record.value)
    row = {"offset": record.offset, "time": change.time, "item": change.id, "deleted": change.item is None}
    return [row if change.item is None else row | _description(change.item)]


def _description(item: Item) -> dict[str, Any]:
    return {
        "title": item.title,
        "categories": item.categories,
        "attributes": msgspec.json.encode(item.attributes).decode(),
        "available": item.available,
    }


_EVENTS = _Topic("events", EVENTS, _event_rows)
_CATALOGUE = _Topic("catalogue", CATALOGUE, _catalogue_rows)


@contextlib.contextmanager
def _alone(lake: Path) -> Iterator[None]:
    lake.mkdir(parents=True, exist_ok=True)
    with (lake / ".sink.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it does
        except BlockingIOError:
            raise Unavailable(
                f"Another sink writes to the lake {lake}. Stop it first, or wait until it ends."
            ) from None
        yield


def _folder(directory: Path, log_id: str, partition: int) -> Path:
    return directory / f"log={log_id}" / f"partition={partition}"


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    ranges = []
    for path in folder.glob("[0-9]*-*.parquet"):
        start, _, end = path.stem.partition("-")
        ranges.append((int(start), int(end), path))
    return sorted(ranges)


def _covered(folder: Path) -> int:
    return max((end for _, end, _ in _files(folder)), default=0)
