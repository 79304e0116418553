"""The updater: reads the log, folds it, commits to Redis. Exactly once in effect.

Each partition of each namespace is a fold with a position. A batch is folded in memory and committed together with the
position it leads to, in a transaction that fails if anybody else moved the position: after a crash, a pause or a second
updater the state is read back and the fold goes on from what is stored. What must not be lost but may come twice (dead
letters, users' histories) is written before the commit. Several updaters share the partitions; who works on what is a
matter of speed (feature_store/membership.py), never of what the state becomes.

What fails is set aside by itself, and tried again: a namespace that cannot be read, one partition whose log, state or
dead letters fail (streaming/health.py). Everything else goes on.
"""

import gc
import logging
import threading
import time
from collections.abc import Collection
from functools import partial

import redis
from prometheus_client import Counter, Gauge

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import Fenced, LogMismatch, MatchLoopError, Unavailable
from feature_store.home import Home
from feature_store.membership import Membership
from feature_store.namespace import Namespace
from feature_store.online.store import OnlineStore
from streaming.dead_letter import Outbox
from streaming.health import Health, Part
from streaming.kafka import Log, PartitionsLost, Record
from streaming.partition import COMMITTED, OPEN, PartitionUpdater
from streaming.settings import RewardSettings

_log = logging.getLogger(__name__)

_POLL_MS = 20
_MAX_RECORDS = 500
_IDLE_SECONDS = 0.2
# Between two commits. A record at a time would cost the log, Redis and every reader several times more; the embedded
# broker looks through all that a partition holds for each fetch that finds something.
_PACE_SECONDS = 0.05
_RETRY_SECONDS = 0.2

LAG = Gauge("matchloop_updater_lag_records", "Records of the log not folded yet", ["namespace", "partition"])
FENCED = Counter("matchloop_updater_fenced", "Commits refused because another writer was ahead")
STEPPED = Gauge("matchloop_updater_last_step_timestamp_seconds", "When the updater last got through its work")
QUARANTINED = Gauge(
    "matchloop_updater_quarantined", "1: set aside because it failed, and tried again", ["namespace", "partition"]
)

_NOT_OF_ONE_PARTITION = (redis.ConnectionError, redis.TimeoutError)  # nobody could commit: wait for Redis


def new_health() -> Health:
    """What an updater reports to."""
    return Health(QUARANTINED, STEPPED)


class NamespaceUpdater:
    """The partitions of one namespace that this process works on, read by one reader."""

    def __init__(
        self,
        namespace: Namespace,
        log: Log,
        log_id: str,
        state: BanditStore,
        rewards: RewardSettings,
        home: Home,
        health: Health,
    ) -> None:
        self._namespace = namespace
        self._load = partial(PartitionUpdater, namespace, log_id=log_id, state=state, rewards=rewards, home=home)
        self._health = health
        self._partitions: dict[int, PartitionUpdater] = {}
        self._reader = log.reader(log.settings.topics.events, {})

    def assign(self, partitions: Collection[int]) -> None:
        """Works on these partitions from now on: those that are new are read back, those of others are forgotten, those
        in quarantine wait for their time."""
        before = set(self._partitions)
        for partition in before - set(partitions):
            self._forget(partition)
        for partition in set(partitions) - before:
            if self._health.may_work(self._part(partition)):
                try:
                    self._partitions[partition] = self._load(partition)
                except _NOT_OF_ONE_PARTITION:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, the other partitions go on
                    self._health.failed(self._part(partition), error)
        if self._partitions.keys() != before:
            _log.info("namespace %s: partitions %s", self._namespace.id, sorted(self._partitions))
            self._read_on()

    def step(self, outbox: Outbox, online: OnlineStore) -> int:
        """Folds and commits what has come. Returns the number of records. Raises redis.RedisError if Redis does not
        answer."""
        records = self._poll() if self._partitions else []
        before = set(self._partitions)
        for number in before:
            try:
                progressed = self._advance(number, [r for r in records if r.partition == number], outbox, online)
                self._health.worked(self._part(number), progressed)
            except _NOT_OF_ONE_PARTITION:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the other partitions go on
                self._set_aside([number], error)
        if self._partitions.keys() != before:
            self._read_on()
        return len(records)

    def close(self) -> None:
        """Disconnects."""
        for partition in list(self._partitions):
            self._forget(partition)
        self._reader.close()

    def _poll(self) -> list[Record]:
        try:
            return self._reader.poll(_POLL_MS, _MAX_RECORDS)
        except PartitionsLost as error:
            for number in error.partitions:
                self._fold_lake(number, error)
        except Unavailable as error:
            self._set_aside(list(self._partitions), error)
        self._read_on()
        return []

    def _fold_lake(self, number: int, error: Exception) -> None:
        """Goes on with the lake where the log does not reach back as far."""
        try:
            if self._partitions[number].fold_lake():
                _log.warning("%s partition %d goes on with the lake: %s", self._namespace.id, number, error)
                return
        except (MatchLoopError, OSError) as unread:
            error = unread
        self._set_aside([number], error)

    def _advance(self, number: int, records: list[Record], outbox: Outbox, online: OnlineStore) -> bool:
        """Folds the records of a partition and commits. Returns whether something was written."""
        partition = self._partitions[number]
        partition.post(partition.fold(records), outbox)
        try:
            committed = partition.commit(online)
        except Fenced as error:
            FENCED.inc()
            _log.warning("%s Reading the state back.", error)
            partition.reload()
            self._reader.seek(number, partition.offset)
            committed = False
        LAG.labels(self._namespace.id, str(number)).set(self._reader.lag(number))
        return committed

    def _set_aside(self, partitions: Collection[int], error: Exception) -> None:
        """What was folded and not committed is forgotten: it is read back with the next try."""
        for number in partitions:
            if number in self._partitions:
                self._drop(number)
            self._health.failed(self._part(number), error)

    def _read_on(self) -> None:
        self._reader.assign({number: partition.offset for number, partition in self._partitions.items()})

    def _forget(self, number: int) -> None:
        self._drop(number)
        self._health.forget(self._part(number))

    def _drop(self, number: int) -> None:
        del self._partitions[number]
        for gauge in (OPEN, LAG, COMMITTED):
            gauge.remove(self._namespace.id, str(number))

    def _part(self, number: int) -> Part:
        return Part(self._namespace.id, number)


class _Updaters:
    """The namespaces on the list in Redis, each with the partitions that fall to this process."""

    def __init__(
        self,
        log: Log,
        rewards: RewardSettings,
        state: BanditStore,
        online: OnlineStore,
        membership: Membership,
        home: Home,
        health: Health,
    ) -> None:
        self._log = log
        self._rewards = rewards
        self._state = state
        self._online = online
        self._membership = membership
        self._home = home
        self._health = health
        self._log_id, self._count = "", 0
        self._updaters: dict[str, NamespaceUpdater] = {}

    def step(self, outbox: Outbox) -> float:
        """Folds and commits what has come. Returns how many seconds from its beginning the next one may wait. Raises
        redis.RedisError if Redis does not answer, Unavailable or LogMismatch if the log does not say which it is."""
        if not self._log_id:
            self._look_at_log()
        elif due := self._health.due():
            try:
                self._look_at_log()
            except MatchLoopError as error:
                for part in due:
                    self._health.failed(part, error)
        wanted, partitions = self._online.deployment.namespaces(), self._membership.partitions(self._count)
        self._forget_all_but(wanted, partitions)
        most = max((self._step(name, partitions, outbox) for name in wanted), default=0)
        self._health.step()
        if not (self._updaters and partitions):
            return _IDLE_SECONDS
        return 0.0 if most == _MAX_RECORDS else _PACE_SECONDS

    def close(self) -> None:
        """Disconnects, and forgets what was not committed."""
        for updater in self._updaters.values():
            updater.close()
        self._updaters.clear()
        self._log_id = ""

    def _look_at_log(self) -> None:
        """Another log than before means other offsets: everything is read back."""
        found = self._log.log_id(), self._log.partitions()
        if found != (self._log_id, self._count):
            self.close()
            self._log_id, self._count = found

    def _forget_all_but(self, wanted: Collection[str], partitions: Collection[int]) -> None:
        for name in self._updaters.keys() - set(wanted):
            self._updaters.pop(name).close()
        for part in self._health.parts():
            if part.of not in wanted or part.partition not in partitions:
                self._health.forget(part)

    def _step(self, name: str, partitions: Collection[int], outbox: Outbox) -> int:
        """A namespace that cannot be read at all is set aside with every partition."""
        parts = [Part(name, partition) for partition in partitions]
        if name not in self._updaters:
            if not any(self._health.may_work(part) for part in parts):
                return 0
            try:
                self._updaters[name] = self._begin(name)
            except _NOT_OF_ONE_PARTITION:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the other namespaces go on
                for part in parts:
                    self._health.failed(part, error)
                return 0
        updater = self._updaters[name]
        updater.assign(partitions)
        return updater.step(outbox, self._online)

    def _begin(self, name: str) -> NamespaceUpdater:
        namespace = Namespace.load(self._home.namespaces, name)
        if len(namespace.offsets) != self._count:
            raise LogMismatch(
                f"Namespace {name} was made for {len(namespace.offsets)} partitions, the log has {self._count}. "
                "Run `matchloop retrain`, or point kafka.bootstrap at the log it was made on."
            )
        return NamespaceUpdater(
            namespace, self._log, self._log_id, self._state, self._rewards, self._home, self._health
        )


def collect_rarely() -> None:
    """Has Python look for reference cycles seldom. A batch makes many objects that live until it is committed and no
    cycles: looking through them again and again took half the time of decoding them. Not never: each poll that finds
    nothing leaves a cycle behind in kafka-python, with what the last fetch brought."""
    gc.freeze()
    gc.set_threshold(10_000, 5, 20)


def run(
    log: Log,
    rewards: RewardSettings,
    state: BanditStore,
    online: OnlineStore,
    membership: Membership,
    home: Home,
    stop: threading.Event,
    health: Health | None = None,
) -> None:
    """Folds every namespace on the list in Redis until stopped, its share of the partitions. health: where to say how
    that goes.

    When Redis or the log goes away, what was folded and not committed is forgotten, and the state is read back when it
    answers again: whether it has the last commit, or an older state than that, no longer matters.
    """
    collect_rarely()
    updaters = _Updaters(log, rewards, state, online, membership, home, health or new_health())
    writer = log.writer()
    outbox = Outbox(writer, log.settings.topics.deadletter)
    try:
        while not stop.is_set():
            began = time.monotonic()
            try:
                pause = updaters.step(outbox)
                stop.wait(max(0.0, began + pause - time.monotonic()))
            except (redis.RedisError, MatchLoopError) as error:
                _log.warning("waiting for %s: %s", "Redis" if isinstance(error, redis.RedisError) else "the log", error)
                updaters.close()
                stop.wait(_RETRY_SECONDS)
    finally:
        updaters.close()
        writer.close()
