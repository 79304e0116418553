"""The log as Parquet files: events and catalogue changes, each exactly once; and Redis' catalogue, as these say.

A file is named by what it holds (lake_files.py), and gets its name once it is on the disk; the next offset is the end
of the last file. A sink that died writes the same file again, or goes on behind it. A partition in which only ticks
arrive gets no files: its ticks lie beside them. Records that hold nothing readable are left out, and go to the
dead-letter topic. What the log itself does not hold any more is marked as lost, so that readers know of it.
"""

import contextlib
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
from prometheus_client import Gauge

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import InvalidInput, MatchLoopError, Unavailable
from feature_store.contracts.events import Tick, encode
from feature_store.home import Home
from feature_store.lake_claim import claim
from feature_store.lake_path import LakePath, make_folder, set_aside
from feature_store.object_store import ObjectPath
from feature_store.online.store import OnlineStore
from streaming import lake_files
from streaming.catalogue_reconciler import CatalogueReconciler
from streaming.dead_letter import Letter, Outbox
from streaming.health import Health, Part
from streaming.kafka import Appended, Log, PartitionsLost, Record
from streaming.lake_events import coverage
from streaming.lake_files import Ticks, partition_folder
from streaming.lake_rows import CATALOGUE_TOPIC, EVENT_TOPIC, Topic
from streaming.settings import KafkaSettings, LakeSettings

_log = logging.getLogger(__name__)

_POLL_MS = 200
_DRAIN_POLLS = 25
_DRAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_FETCH_WAIT_MS = 500
_MAX_RECORDS = 1000
_PACE_SECONDS = 0.5  # between two looks that leave nothing unread: nobody waits for what is not in a file yet
_MANY_TICKS = 5_000  # seven hours of them, at one in five seconds
_WANTED = ".wanted"  # whoever touches it wants all that was read in the lake

LAG = Gauge("matchloop_sink_lag_records", "Records of the log not read yet", ["topic", "partition"])
WRITTEN = Gauge("matchloop_sink_last_write_timestamp_seconds", "When it last wrote something", ["topic", "partition"])
FILES = Gauge("matchloop_lake_files", "Files of a partition in the lake", ["topic", "partition"])
DAMAGED = Gauge("matchloop_lake_damaged", "1: the files have a hole or an overlap", ["topic", "partition"])
STEPPED = Gauge("matchloop_sink_last_step_timestamp_seconds", "When the sink last got through its work")
QUARANTINED = Gauge(
    "matchloop_sink_quarantined", "1: set aside because it failed, and tried again", ["topic", "partition"]
)


def new_health() -> Health:
    """What a sink reports to."""
    return Health(QUARANTINED, STEPPED)


def run(
    kafka: KafkaSettings,
    bootstrap: str,
    home: Home,
    online: OnlineStore,
    settings: LakeSettings,
    clock: Clock,
    stop: threading.Event,
    health: Health | None = None,
    beside: Callable[[], None] = lambda: None,
) -> None:
    """Writes both topics to the lake, and the catalogue on to Redis, until stopped, then what is left. health: where to
    say how that goes. beside: what else to do with each step. Raises Unavailable if another sink is at work on the
    lake: two would write the same events under different names."""
    health = health or new_health()
    log = Log(kafka, bootstrap)
    with _alone(home), contextlib.closing(log.writer()) as writer:
        outbox = Outbox(writer, kafka.topics.deadletter)
        pause = min(_PACE_SECONDS, settings.flush_seconds / 4)
        _, catalogue = sinks = [
            TopicSink(log, kafka.topics.events, home.lake, EVENT_TOPIC, settings, outbox, health),
            TopicSink(log, kafka.topics.catalogue, home.lake, CATALOGUE_TOPIC, settings, outbox, health),
        ]
        reconciler = CatalogueReconciler(home, online, health)
        wanted = _wanted_at(home)
        try:
            while not stop.is_set():
                asked, wanted = wanted, _wanted_at(home)
                read = [sink.step(clock.now_ms(), _POLL_MS // len(sinks), asked != wanted) for sink in sinks]
                reconciler.step(*catalogue.stored(0))
                beside()
                health.step()
                if max(read) < _MAX_RECORDS:
                    stop.wait(pause)
            for sink in sinks:
                sink.drain()
            reconciler.step(*catalogue.stored(0))
        finally:
            for sink in sinks:
                sink.close()


class PartitionSink:
    """One partition's way into the lake, from where its files end."""

    def __init__(self, lake: LakePath, kind: Topic, log_id: str, partition: int, outbox: Outbox) -> None:
        self._folder = partition_folder(lake / kind.source, log_id, partition)
        self._kind = kind
        self._log_id = log_id
        self._outbox = outbox
        self._start = self.next = _sound_end(self._folder)
        self._rows: list[dict[str, Any]] = []
        ticks = lake_files.read_ticks(self._folder)
        if ticks is not None and ticks.start <= self._start < ticks.end:
            self._rows = [_tick_row(*tick) for tick in ticks.ticks if tick[0] >= self._start]
            self.next = ticks.end
        self._written = self.next
        self._posted: list[Future[Appended]] = []

    @property
    def waiting(self) -> int:
        """Rows that are in no file yet."""
        return len(self._rows)

    @property
    def stored(self) -> int:
        """The first offset that is in no file yet."""
        return self._start

    def take(self, record: Record) -> None:
        """Makes rows of a record, or a dead letter."""
        try:
            self._rows += self._kind.rows(record)
        except InvalidInput as error:
            self._posted.append(self._outbox.post(self._letter(record, str(error))))
        self.next = record.offset + 1

    def flush(self, patient: bool = False) -> bool:
        """Writes what waits, and returns whether it did. Dead letters must have arrived: if it is patient it waits for
        them. Raises Unavailable if the log does not take one."""
        if self.next == self._written or not (patient or all(letter.done() for letter in self._posted)):
            return False
        for letter in self._posted:
            letter.result()
        self._posted = []
        make_folder(self._folder)
        ticks = [(row["offset"], row["position"], row["time"]) for row in self._rows if row.get("kind") == "tick"]
        if self._kind is EVENT_TOPIC and len(ticks) == len(self._rows) < _MANY_TICKS:
            lake_files.write_ticks(self._folder, Ticks(self._start, self.next, ticks))
        else:
            self._write_file()
        self._written = self.next
        return True

    def skip_to(self, offset: int) -> None:
        """Writes what waits, and marks what lies between it and the offset as lost."""
        self.flush(patient=True)
        if self.next > self._start:  # ticks
            self._write_file()
        make_folder(self._folder)
        lake_files.mark_lost(self._folder, self._start, offset)
        self._start = self.next = self._written = offset

    def _write_file(self) -> None:
        if isinstance(self._folder, ObjectPath) and (end := lake_files.end(self._folder)) > self._start:
            raise Unavailable(
                f"{self._folder} reaches to offset {end} by now: a put of a sink that is gone has arrived late. This "
                f"one goes on from there, instead of from {self._start}."
            )
        lake_files.write(self._folder, self._start, self.next, pa.Table.from_pylist(self._rows, self._kind.schema))
        self._start, self._rows = self.next, []

    def measure(self, topic: str, number: int) -> None:
        """Says how many files there are, and whether they fit together."""
        chain, flaws = lake_files.fitted(self._folder)
        FILES.labels(topic, str(number)).set(len(chain))
        DAMAGED.labels(topic, str(number)).set(bool(flaws))

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


class TopicSink:
    """One topic's way into the lake. A partition that fails is set aside, and begins again where its files end."""

    def __init__(
        self,
        log: Log,
        topic: str,
        lake: LakePath,
        kind: Topic,
        settings: LakeSettings,
        outbox: Outbox,
        health: Health,
    ) -> None:
        self._log = log
        self._topic = topic
        self._lake = lake
        self._kind = kind
        self._settings = settings
        self._outbox = outbox
        self._health = health
        self._flushed_at = 0
        self._partitions: dict[int, PartitionSink] = {}
        self._log_id, self._count = log.log_id(topic), log.partitions(topic)
        self._reader = log.reader(topic, {}, _FETCH_WAIT_MS)

    def step(self, now_ms: int, wait_ms: int, wanted: bool) -> int:
        """Reads what has come, and writes files when it is time, or somebody wants them. Returns the number of records
        read."""
        if any(part.of == self._topic for part in self._health.due()):
            self._look_at_log()
        self._assign()
        read = self._read(wait_ms)
        due = now_ms - self._flushed_at >= self._settings.flush_seconds * 1000
        full = any(partition.waiting >= self._settings.flush_events for partition in self._partitions.values())
        written = self._flush() if due or full or wanted else set()
        if due or full or wanted:
            self._flushed_at = now_ms
        for number in self._partitions:
            self._health.worked(self._part(number), number in written)
            LAG.labels(self._topic, str(number)).set(self._reader.lag(number))
        return read

    def drain(self) -> None:
        """Reads until nothing more comes, a while at most, and writes it all: an orderly end loses nothing."""
        for _ in range(_DRAIN_POLLS):
            if not self._read(_POLL_MS):
                break
        self._flush(patient=True)

    def stored(self, number: int) -> tuple[str, int]:
        """The log, and the first offset of a partition of it that is in no file yet; 0 while it is set aside."""
        partition = self._partitions.get(number)
        return self._log_id, 0 if partition is None else partition.stored

    def close(self) -> None:
        """Disconnects."""
        self._reader.close()

    def _look_at_log(self) -> None:
        """Another log than before: what was read of the old one is written, and the new one begins."""
        try:
            found = self._log.log_id(self._topic), self._log.partitions(self._topic)
        except MatchLoopError as error:
            for part in self._health.due():
                if part.of == self._topic:
                    self._health.failed(part, error)
            return
        if found != (self._log_id, self._count):
            _log.warning("log %s of topic %s began anew as %s", self._log_id, self._topic, found[0])
            self._flush(patient=True)
            self._partitions.clear()
            self._log_id, self._count = found

    def _assign(self) -> None:
        """Begins with the partitions that may work and do not yet."""
        before = set(self._partitions)
        for number in range(self._count):
            if number not in before and self._health.may_work(self._part(number)):
                with self._setting_aside([number]):
                    self._partitions[number] = PartitionSink(self._lake, self._kind, self._log_id, number, self._outbox)
        if self._partitions.keys() != before:
            self._read_on()

    def _read(self, wait_ms: int) -> int:
        records: list[Record] = []
        before = set(self._partitions)
        with self._setting_aside(before):
            records = self._reader.poll(wait_ms, _MAX_RECORDS) if before else []
        for record in records:
            if record.partition in self._partitions:
                with self._setting_aside([record.partition]):
                    self._partitions[record.partition].take(record)
        if self._partitions.keys() != before:
            self._read_on()
        return len(records)

    def _flush(self, patient: bool = False) -> set[int]:
        """Writes what waits. Returns the partitions that have a new file."""
        written, before = set(), set(self._partitions)
        for number in before:
            with self._setting_aside([number]):
                if self._partitions[number].flush(patient):
                    written.add(number)
                    self._partitions[number].measure(self._topic, number)
                    WRITTEN.labels(self._topic, str(number)).set_to_current_time()
        if self._partitions.keys() != before:
            self._read_on()
        return written

    @contextlib.contextmanager
    def _setting_aside(self, numbers: Collection[int]) -> Iterator[None]:
        """What fails within is of these partitions, or of those that the error names, and of no others."""
        try:
            yield
        except PartitionsLost as error:
            for number in error.partitions:
                try:
                    if self._partitions[number].next < (begin := self._reader.begin(number)):
                        _log.error("topic %s holds partition %d from offset %d on only", self._topic, number, begin)
                        self._partitions[number].skip_to(begin)
                        continue
                    self._partitions[number].flush(patient=True)  # what was read may not be there any more
                except (MatchLoopError, OSError):
                    pass
                self._set_aside(number, error)
            self._read_on()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other partitions go on
            for number in list(numbers):
                self._set_aside(number, error)

    def _set_aside(self, number: int, error: Exception) -> None:
        self._partitions.pop(number, None)
        self._health.failed(self._part(number), error)

    def _read_on(self) -> None:
        self._reader.assign({number: partition.next for number, partition in self._partitions.items()})

    def _part(self, number: int) -> Part:
        return Part(self._topic, number)


def drain(log: Log, home: Home, clock: Clock, patience_seconds: float = _DRAIN_SECONDS) -> list[int]:
    """Marks the present end of the log with ticks and waits until the lake holds it. Returns the offset behind it, per
    partition. Raises Unavailable, naming what is missing, when the lake has not grown for a minute."""
    ends, log_id = log.append_everywhere(encode([Tick(time=clock.now_ms())])), log.log_id()
    before, deadline = [-1], 0.0
    while True:
        held = [coverage(home.lake, log_id, partition) for partition in range(len(ends))]
        behind = {partition: end for partition, end in enumerate(ends) if held[partition] < end}
        if not behind:
            return ends
        if held != before:
            before, deadline = held, time.monotonic() + patience_seconds
        if time.monotonic() > deadline:
            raise Unavailable(
                f"The lake {home.lake} does not hold partitions {sorted(behind)} up to their offsets "
                f"{list(behind.values())}, and has not grown for {patience_seconds:.0f} s. Is the sink running?"
            )
        with contextlib.suppress(FileNotFoundError):  # no sink has ever worked on it
            (home.aside / _WANTED).touch()
        time.sleep(_LOOK_SECONDS)


def _tick_row(offset: int, position: int, time_ms: int) -> dict[str, Any]:
    return {"offset": offset, "position": position, "kind": "tick", "time": time_ms}


def _sound_end(folder: LakePath) -> int:
    """Where the files of a partition end. Torn ones at the end, which a power failure can leave, are put aside and
    written again."""
    while (found := lake_files.all_stretches(folder)) and (last := max(found, key=lambda one: one.end)).held:
        if not lake_files.is_torn(last.path):
            return last.end
        _log.error("%s is torn, and is written again", last.path)
        set_aside(last.path, ".torn")
    return max((stretch.end for stretch in found), default=0)


def _wanted_at(home: Home) -> int:
    """When somebody last wanted all that was read in the lake; ns, 0: nobody ever did."""
    with contextlib.suppress(FileNotFoundError):
        return (home.aside / _WANTED).stat().st_mtime_ns
    return 0


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    claim(home)
    home.aside.mkdir(parents=True, exist_ok=True)
    with (home.aside / ".sink.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it does
        except BlockingIOError:
            raise Unavailable(
                f"Another sink writes to the lake {home.lake}. Stop it first, or wait until it ends."
            ) from None
        yield
