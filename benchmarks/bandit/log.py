"""Records as the API writes them, and what reads them: a bare consumer, the updater in this process, and updaters in
processes of their own."""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from unittest.mock import patch

import numpy as np
import psutil
from kafka import KafkaConsumer, TopicPartition
from kafka.record.util import crc32c_py

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Decision, Feedback, encode
from feature_store.contracts.identity import Keyring
from feature_store.graph import Graph
from feature_store.membership import Membership
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.sums import NO_ROWS
from infra.connections import event_log, redis_client
from infra.settings import Settings
from streaming.dead_letter import Outbox
from streaming.kafka import Writer
from streaming.updater import NamespaceUpdater, new_health, run

SLATE, EXPLORED, CLUSTERS, CLICKS = 20, 20, 5, 3
_ITEMS, _ALL_CLUSTERS, _USERS = 2_000, 300, 5_000
_RELEASE = "0123456789abcdef"
_AT_ONCE = 500
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.01


def records(decisions: int, seed: int) -> list[tuple[str, bytes]]:
    """(key, value) of two records for each decision: the decision itself, with SLATE items that have edges to all of
    its CLUSTERS clusters, and one POST of feedback with CLICKS events."""
    rng = np.random.default_rng(seed)
    keyring, now = Keyring(b"a secret for the bench"), SystemClock().now_ms()
    keys = [keyring.user_key(str(user)) for user in range(_USERS)]
    made = []
    for _ in range(decisions):
        user = keys[rng.integers(_USERS)]
        items = [f"item-{j}" for j in rng.choice(_ITEMS, SLATE + EXPLORED, replace=False)]
        floats = rng.random((3, len(items))).tolist()
        decision = Decision(
            id=keyring.decision_id(user, now), user=user, time=now, surface="home", release=_RELEASE,
            namespace=f"{_RELEASE}-0", variant="online-matching", learns=True, offsets=[0, 0],
            clusters=np.sort(rng.choice(_ALL_CLUSTERS, CLUSTERS, replace=False)).tolist(),
            weights=rng.dirichlet(np.full(CLUSTERS, 5.0)).tolist(), history=items[:10],
            history_kinds=["click+"] * 10, history_times=[now] * 10, profile=["age:25", "sex:f"],
            items=items, shown=SLATE, sources=["index"] * len(items), predicted=floats[0], mean=floats[1],
            bonus=floats[2], edges=[(1 << CLUSTERS) - 1] * len(items), probabilities=[0.5] * SLATE,
        )  # fmt: skip
        clicked = rng.choice(SLATE, CLICKS, replace=False)
        feedback = [
            Feedback(
                id=f"event-{k}", decision=decision.id, user=user, item=items[k], type="click", value=1.0, time=now,
                received=now,
            )
            for k in clicked
        ]  # fmt: skip
        made += [(user, encode([decision])), (user, encode(feedback))]
    return made


class LogBench:
    """A log with records, and what reads them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.records = self.events = 0
        self._log = event_log(settings)
        self._log.create_topics()
        self._namespaces = 0
        self._ends = [0] * settings.kafka.partitions

    def append(self, decisions: int, seed: int) -> None:
        """Writes as many decisions, with their feedback."""
        writer = Writer(self._log.bootstrap)
        made = records(decisions, seed)
        for first in range(0, len(made), _AT_ONCE):
            sent = [
                writer.send(self.settings.kafka.topics.events, *record) for record in made[first : first + _AT_ONCE]
            ]
            for future in sent:
                place = future.result(_WAIT_SECONDS)
                self._ends[place.partition] = max(self._ends[place.partition], place.offset + 1)
        writer.close()
        self.records += len(made)
        self.events += decisions * (1 + CLICKS)

    def bare(self) -> int:
        """Reads all records with a bare kafka-python consumer; returns their number of events."""
        topic = self.settings.kafka.topics.events
        consumer = KafkaConsumer(
            bootstrap_servers=self._log.bootstrap, group_id=None, enable_auto_commit=False, auto_offset_reset="none",
            fetch_max_wait_ms=50, max_partition_fetch_bytes=16 << 20,
        )  # fmt: skip
        places = [TopicPartition(topic, partition) for partition in range(len(self._ends))]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)
        found = 0
        while found < self.records:
            found += sum(map(len, consumer.poll(timeout_ms=20, max_records=_AT_ONCE).values()))
        consumer.close(autocommit=False)
        return self.events

    def bare_as_installed_alone(self) -> int:
        """The same without the native checksums that kafka-python uses if its extra is installed."""
        with patch("kafka.record.default_records.calc_crc32c", crc32c_py):
            return self.bare()

    def updater(self) -> int:
        """Folds all records into a fresh namespace and commits it to Redis; returns their number of events."""
        settings = self.settings
        namespace = self._namespace()
        with redis_client(settings) as client:
            state, online = BanditStore(client, settings.redis), OnlineStore(client, settings.redis)
            updater = NamespaceUpdater(
                namespace, self._log, self._log.log_id(), state, settings.rewards, settings.layout,
                new_health(),
            )  # fmt: skip
            updater.assign(range(len(self._ends)))
            writer, found = Writer(self._log.bootstrap), 0
            outbox = Outbox(writer, settings.kafka.topics.deadletter)
            while found < self.records:
                found += updater.step(outbox, online)
            updater.close()
            writer.close()
        return self.events

    def cpu_per_event(self, processes: int) -> float:
        """CPU seconds that updater processes sharing the partitions take for an event of a fresh namespace."""
        with redis_client(self.settings) as client, updaters(self.settings, processes) as running:
            state, online = BanditStore(client, self.settings.redis), OnlineStore(client, self.settings.redis)
            self._fold(state, online)  # compiles, connects
            before = _cpu(running)
            self._fold(state, online)
            return (_cpu(running) - before) / self.events

    def _fold(self, state: BanditStore, online: OnlineStore) -> None:
        """Waits until the updaters have folded all records into a fresh namespace."""
        namespace = self._namespace()
        namespace.save(self.settings.home / "namespaces")
        online.deployment.add_namespace(namespace.id)
        deadline = time.monotonic() + _WAIT_SECONDS
        while not all(self._folded(state, namespace.id, partition) for partition in range(len(self._ends))):
            if time.monotonic() > deadline:
                raise Unavailable(f"The updaters did not fold {self.records} records in {_WAIT_SECONDS} s.")
            time.sleep(_POLL_SECONDS)
        online.deployment.retire(namespace.id)

    def _folded(self, state: BanditStore, namespace: str, partition: int) -> bool:
        position = state.position(namespace, partition)
        return self._ends[partition] == 0 or (position is not None and position.offset >= self._ends[partition])

    def _namespace(self) -> Namespace:
        self._namespaces += 1
        partitions = len(self._ends)
        return Namespace(
            id=f"{_RELEASE}-{self._namespaces}", release=_RELEASE, log=self._log.log_id(), offsets=[0] * partitions,
            created=0, graph=Graph(_ALL_CLUSTERS), base=NO_ROWS, starts=[Start()] * partitions,
        )  # fmt: skip


@contextlib.contextmanager
def updaters(settings: Settings, processes: int) -> Iterator[list[BaseProcess]]:
    """Updater processes that share the partitions; members of the group when it begins."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    running = [context.Process(target=_update, args=(settings, barrier), daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    try:
        barrier.wait(_WAIT_SECONDS)
        yield list(running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _update(settings: Settings, barrier: "threading.Barrier") -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with redis_client(settings) as client:
        state, online = BanditStore(client, settings.redis), OnlineStore(client, settings.redis)
        with Membership(client, settings.redis, settings.updater.session_seconds) as membership:
            barrier.wait(_WAIT_SECONDS)
            run(event_log(settings), settings.rewards, state, online, membership, settings.layout, stop)


def _cpu(processes: list[BaseProcess]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return sum(t.user + t.system for t in times)
