"""The updater: reads the log, folds it, commits to Redis. Exactly once in effect.

Each partition of each namespace is a fold with a position. A batch is folded in memory and committed together with the
position it leads to, in a transaction that fails if anybody else moved the position: after a crash, a pause or a second
updater the state is read back and the fold goes on from what is stored. What must not be lost but may come twice (dead
letters, users' histories) is written before the commit.
"""

import logging
import threading
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.errors import Fenced, InvalidInput, LogMismatch
from feature_store.contracts.events import Event
from feature_store.namespace import Namespace, Start
from feature_store.online import OnlineStore
from streaming.admission import events_of
from streaming.dead_letter import Letter, send
from streaming.fold import Fold
from streaming.kafka import Log, Reader, Record, Writer
from streaming.settings import KafkaSettings, RewardSettings
from streaming.sink import coverage, read_events

_log = logging.getLogger(__name__)

_POLL_MS = 20
_MAX_RECORDS = 500

EVENTS = Counter("matchloop_updater_events", "Events folded, by outcome", ["outcome"])
OPEN = Gauge("matchloop_updater_open_decisions", "Decisions whose window has not closed", ["namespace", "partition"])
LAG = Gauge("matchloop_updater_lag_records", "Records of the log not folded yet", ["namespace", "partition"])
COMMIT = Histogram("matchloop_updater_commit_seconds", "Time of one commit", buckets=[0.0005 * 2**i for i in range(12)])
FENCED = Counter("matchloop_updater_fenced", "Commits refused because another writer was ahead")


class PartitionUpdater:
    """One partition of one namespace."""

    def __init__(
        self,
        namespace: Namespace,
        partition: int,
        log_id: str,
        store: BanditStore,
        rewards: RewardSettings,
        lake: Path,
    ) -> None:
        self._namespace = namespace
        self._partition = partition
        self._log_id = log_id
        self._store = store
        self._rewards = rewards
        self._lake = lake
        self.reload()

    @property
    def offset(self) -> int:
        """The next offset to fold."""
        return self._position.offset

    def reload(self) -> None:
        """Reads the stored state back, and moves on to the present log if the stored position belongs to another
        one."""
        state = self._store.load(self._namespace.id, self._partition)
        if state.position is None:
            self._fold = Fold(self._namespace, self._rewards, self._namespace.starts[self._partition])
        else:
            start = Start(state.stream_time, state.learning, state.open)
            self._fold = Fold(self._namespace, self._rewards, start, state.rows)
        self._stored = state.position
        self._logs = state.logs
        first = Position(self._namespace.log, self._namespace.offsets[self._partition])
        self._position = state.position or first
        if self._position.log != self._log_id:
            self._move_to_new_log()

    def fold(self, records: list[Record]) -> list[Letter]:
        """Folds records in memory and returns the dead letters among them. Records below the position are skipped."""
        letters = []
        for record in records:
            if record.offset < self._position.offset:
                continue
            try:
                self._fold.apply(events_of(record))
            except InvalidInput as error:
                letters.append(self._letter(record.offset, str(error), None, record.value))
            letters += [self._letter(record.offset, dead.reason, dead.event, None) for dead in self._fold.take_dead()]
            self._position = Position(self._log_id, record.offset + 1)
        return letters

    def commit(self, online: OnlineStore) -> None:
        """Writes what was folded. Raises Fenced, with nothing committed, if another writer was ahead: reload then."""
        if self._position == self._stored:
            return
        changes = self._fold.take()
        online.add_history(changes.positives)
        with COMMIT.time():
            self._store.commit(
                self._namespace.id,
                self._partition,
                self._stored,
                Commit(
                    position=self._position,
                    logs=self._logs,
                    stream_time=self._fold.stream_time,
                    learning=self._fold.learning,
                    changes=changes.changes,
                    rows=changes.rows,
                    opened=changes.opened,
                    closed=changes.closed,
                ),
            )
        self._stored = self._position
        for outcome, count in self._fold.outcomes.items():
            EVENTS.labels(outcome).inc(count)
        self._fold.outcomes.clear()
        OPEN.labels(self._namespace.id, str(self._partition)).set(self._fold.open_decisions)

    def _move_to_new_log(self) -> None:
        """The log began anew. What the lake still has of the old one is folded first; what the broker lost is lost."""
        old = self._position
        end = max(old.offset, coverage(self._lake, old.log, self._partition))
        self._fold.apply(event for _, event in read_events(self._lake, old.log, self._partition, old.offset))
        self._logs = [*self._logs, str(Position(old.log, end))]
        self._position = Position(self._log_id, 0)
        _log.warning(
            "partition %d of %s: log %s began anew as %s; state up to offset %d is kept",
            self._partition, self._namespace.id, old.log, self._log_id, end,
        )  # fmt: skip

    def _letter(self, offset: int, reason: str, event: Event | None, record: bytes | None) -> Letter:
        return Letter(
            log=self._log_id,
            partition=self._partition,
            offset=offset,
            namespace=self._namespace.id,
            reason=reason,
            event=event,
            record=record,
        )


class NamespaceUpdater:
    """All partitions of one namespace, read by one reader."""

    def __init__(
        self,
        namespace: Namespace,
        kafka: KafkaSettings,
        bootstrap: str,
        log_id: str,
        store: BanditStore,
        rewards: RewardSettings,
        lake: Path,
    ) -> None:
        self._namespace = namespace
        self._topic = kafka.deadletter_topic
        self._partitions = {
            partition: PartitionUpdater(namespace, partition, log_id, store, rewards, lake)
            for partition in range(len(namespace.offsets))
        }
        self._reader = Reader(
            bootstrap, kafka.events_topic, {partition: p.offset for partition, p in self._partitions.items()}
        )

    def step(self, writer: Writer, online: OnlineStore) -> int:
        """Folds and commits what has come. Returns the number of records."""
        records = self._reader.poll(_POLL_MS, _MAX_RECORDS)
        for number, partition in self._partitions.items():
            send(writer, self._topic, partition.fold([r for r in records if r.partition == number]))
            try:
                partition.commit(online)
            except Fenced as error:
                FENCED.inc()
                _log.warning("%s Reading the state back.", error)
                partition.reload()
                self._reader.seek(number, partition.offset)
            LAG.labels(self._namespace.id, str(number)).set(self._reader.lag(number))
        return len(records)

    def close(self) -> None:
        """Disconnects."""
        self._reader.close()


def run(
    kafka: KafkaSettings,
    bootstrap: str,
    rewards: RewardSettings,
    store: BanditStore,
    online: OnlineStore,
    home: Path,
    stop: threading.Event,
) -> None:
    """Folds every namespace on the list in Redis until stopped. Raises LogMismatch if one was made for another number
    of partitions."""
    log = Log(kafka, bootstrap)
    log_id, partitions = log.log_id(), log.partitions()
    updaters: dict[str, NamespaceUpdater] = {}
    writer = Writer(bootstrap)
    try:
        while not stop.is_set():
            wanted = online.namespaces()
            for name in updaters.keys() - set(wanted):
                updaters.pop(name).close()
            for name in set(wanted) - updaters.keys():
                namespace = Namespace.load(home / "namespaces", name)
                if len(namespace.offsets) != partitions:
                    raise LogMismatch(
                        f"Namespace {name} was made for {len(namespace.offsets)} partitions, the log has {partitions}. "
                        "Point kafka.bootstrap at the log it was made on, or retrain."
                    )
                updaters[name] = NamespaceUpdater(namespace, kafka, bootstrap, log_id, store, rewards, home / "lake")
                _log.info("folding namespace %s", name)
            for updater in updaters.values():
                updater.step(writer, online)
            if not updaters:
                stop.wait(0.2)
    finally:
        for updater in updaters.values():
            updater.close()
        writer.close()
