"""The updater: reads the log, folds it, commits to Redis. Exactly once in effect.

Each partition of each namespace is a fold with a position. A batch is folded in memory and committed together with the
position it leads to, in a transaction that fails if anybody else moved the position: after a crash, a pause or a second
updater the state is read back and the fold goes on from what is stored. What must not be lost but may come twice (dead
letters, users' histories) is written before the commit. Several updaters share the partitions; who works on what is a
matter of speed (feature_store/membership.py), never of what the state becomes.
"""

import gc
import logging
import threading
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path

import redis
from prometheus_client import Counter, Gauge, Histogram

from feature_store.bandit_state import BanditStore, Commit, Position, Snapshot, Tail
from feature_store.contracts.errors import Fenced, InvalidInput, LogMismatch
from feature_store.contracts.events import Event
from feature_store.membership import Membership
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
_IDLE_SECONDS = 0.2
_PACE_SECONDS = (
    0.02  # between two commits: a record at a time would cost the log, Redis and every reader several times more
)
_RETRY_SECONDS = 0.2

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
        self._stored, self._tail = state.position, state.tail
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
                self._fold.outcomes["unreadable"] += 1
                letters.append(self._letter(record.offset, str(error), None, record.value))
            letters += [self._letter(record.offset, dead.reason, dead.event, None) for dead in self._fold.take_dead()]
            self._position = Position(self._log_id, record.offset + 1)
        return letters

    def commit(self, online: OnlineStore) -> None:
        """Writes what was folded. Raises Fenced, with nothing committed, if another writer was ahead: reload then."""
        if self._position == self._stored:
            return
        changes = self._fold.take()
        online.add_history(changes.history)
        tail = Tail(self._tail.deltas + 1, self._tail.rows + len(changes.rows.item))
        snapshot = None
        if self._store.wants_snapshot(tail, len(self._fold.sums)):
            snapshot, tail = Snapshot(self._fold.sums.rows(), tail.deltas), Tail()
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
                    changes=changes.rows,
                    opened=changes.opened,
                    closed=changes.closed,
                    snapshot=snapshot,
                ),
            )
        self._stored, self._tail = self._position, tail
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
    """The partitions of one namespace that this process works on, read by one reader."""

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
        self._load = partial(PartitionUpdater, namespace, log_id=log_id, store=store, rewards=rewards, lake=lake)
        self._partitions: dict[int, PartitionUpdater] = {}
        self._reader = Reader(bootstrap, kafka.events_topic, {})

    def assign(self, partitions: Collection[int]) -> None:
        """Works on these partitions from now on: those that are new are read back, those of others are forgotten."""
        if set(partitions) == self._partitions.keys():
            return
        _log.info("namespace %s: partitions %s", self._namespace.id, sorted(partitions))
        for partition in self._partitions.keys() - set(partitions):
            self._forget(partition)
        for partition in set(partitions) - self._partitions.keys():
            self._partitions[partition] = self._load(partition)
        self._reader.assign({number: partition.offset for number, partition in self._partitions.items()})

    def step(self, writer: Writer, online: OnlineStore) -> int:
        """Folds and commits what has come. Returns the number of records."""
        records = self._reader.poll(_POLL_MS, _MAX_RECORDS) if self._partitions else []
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
        for partition in list(self._partitions):
            self._forget(partition)
        self._reader.close()

    def _forget(self, partition: int) -> None:
        del self._partitions[partition]
        for gauge in (OPEN, LAG):
            gauge.remove(self._namespace.id, str(partition))


class _Updaters:
    """The namespaces on the list in Redis, each with the partitions that fall to this process."""

    def __init__(
        self,
        kafka: KafkaSettings,
        bootstrap: str,
        rewards: RewardSettings,
        store: BanditStore,
        online: OnlineStore,
        membership: Membership,
        home: Path,
    ) -> None:
        self._kafka = kafka
        self._bootstrap = bootstrap
        self._rewards = rewards
        self._store = store
        self._online = online
        self._membership = membership
        self._home = home
        log = Log(kafka, bootstrap)
        self._log_id, self._count = log.log_id(), log.partitions()
        self._updaters: dict[str, NamespaceUpdater] = {}

    def step(self, writer: Writer) -> float:
        """Folds and commits what has come. Returns how many seconds from its beginning the next one may wait."""
        wanted = self._online.namespaces()
        for name in self._updaters.keys() - set(wanted):
            self._updaters.pop(name).close()
        for name in set(wanted) - self._updaters.keys():
            self._updaters[name] = self._begin(name)
        partitions = self._membership.partitions(self._count)
        most = 0
        for updater in self._updaters.values():
            updater.assign(partitions)
            most = max(most, updater.step(writer, self._online))
        if not (self._updaters and partitions):
            return _IDLE_SECONDS
        return 0.0 if most == _MAX_RECORDS else _PACE_SECONDS

    def close(self) -> None:
        """Disconnects, and forgets what was not committed."""
        for updater in self._updaters.values():
            updater.close()
        self._updaters.clear()

    def _begin(self, name: str) -> NamespaceUpdater:
        namespace = Namespace.load(self._home / "namespaces", name)
        if len(namespace.offsets) != self._count:
            raise LogMismatch(
                f"Namespace {name} was made for {len(namespace.offsets)} partitions, the log has {self._count}. "
                "Point kafka.bootstrap at the log it was made on, or retrain."
            )
        return NamespaceUpdater(
            namespace, self._kafka, self._bootstrap, self._log_id, self._store, self._rewards, self._home / "lake"
        )


def collect_rarely() -> None:
    """Has Python look for reference cycles seldom. A batch makes many objects that live until it is committed and no
    cycles: looking through them again and again took half the time of decoding them."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def run(
    kafka: KafkaSettings,
    bootstrap: str,
    rewards: RewardSettings,
    store: BanditStore,
    online: OnlineStore,
    membership: Membership,
    home: Path,
    stop: threading.Event,
) -> None:
    """Folds every namespace on the list in Redis until stopped, its share of the partitions. Raises LogMismatch if one
    was made for another number of partitions.

    When Redis goes away, what was folded and not committed is forgotten, and the state is read back when it answers
    again: whether it has the last commit, or an older state than that, is then no matter of belief.
    """
    collect_rarely()
    updaters = _Updaters(kafka, bootstrap, rewards, store, online, membership, home)
    writer = Writer(bootstrap)
    try:
        while not stop.is_set():
            began = time.monotonic()
            try:
                pause = updaters.step(writer)
                stop.wait(max(0.0, began + pause - time.monotonic()))
            except redis.RedisError as error:
                _log.warning("waiting for Redis: %s", error)
                updaters.close()
                stop.wait(_RETRY_SECONDS)
    finally:
        updaters.close()
        writer.close()
