"""One bad namespace, log, state or record: it is set aside, the rest goes on, and mended it comes back by itself."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from kafka.errors import OffsetOutOfRangeError

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Event, Tick, encode
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS, N
from infra.servers import LOOPBACK, free_port, http_answers, quarantined
from infra.telemetry import serve_metrics
from streaming import kafka
from streaming.health import Health
from streaming.kafka import Log, PartitionsLost, Reader, Record, Writer
from streaming.lake_files import partition_folder
from streaming.lake_rows import row_of
from streaming.settings import KafkaSettings
from streaming.updater import QUARANTINED, new_health
from tests.api_server import wait_until
from tests.events import decision, feedback
from tests.lakes import put
from tests.updaters import start_updater

_SECONDS = 120.0  # on a busy machine; a second when it is quiet


class Installation:
    """A log of its own, and an updater on it."""

    def __init__(self, broker: str, redis_url: str, home: Path, name: str) -> None:
        self.kafka = KafkaSettings(
            partitions=2, events_topic=name, catalogue_topic=f"{name}-items", deadletter_topic=f"{name}-dead"
        )
        self.broker, self.home, self.name = broker, home, name
        self.log = Log(self.kafka, broker)
        self.log.create_topics()
        self.redis = redis.Redis.from_url(redis_url)
        self.settings = RedisSettings(prefix=name)
        self.state, self.online = BanditStore(self.redis, self.settings), OnlineStore(self.redis, self.settings)
        self.writer = Writer(broker)
        self.health: Health = new_health()
        self._stop = threading.Event()
        self._running: threading.Thread | None = None

    def namespace(self, name: str, partitions: int = 2) -> Namespace:
        made = Namespace(
            id=f"{self.name}-{name}", release="r", log=self.log.log_id(), offsets=[0] * partitions, created=0,
            graph=Graph(4), base=NO_ROWS, starts=[Start()] * partitions,
        )  # fmt: skip
        made.save(self.home / "namespaces")
        self.online.deployment.add_namespace(made.id)
        return made

    def start(self) -> None:
        arguments = self.kafka, self.broker, self.redis, self.settings, self.home, self._stop
        self._running = start_updater(*arguments, health=self.health)

    def folds(self, namespace: str, *partitions: int) -> None:
        """Waits until a new record of each of the partitions has been folded."""
        for partition in partitions:
            place = self.writer.send(self.kafka.topics.events, None, encode([Tick(time=1)]), partition).result()

            def folded(partition: int = partition, offset: int = place.offset) -> bool:
                position = self.state.position(namespace, partition)
                return position is not None and offset < position.offset < 1000

            wait_until(folded, _SECONDS)

    def reasons(self) -> dict[tuple[str, int], str]:
        return {(part.of, part.partition): part.reason for part in self.health.quarantined()}

    def is_quarantined(self, namespace: str, partition: int) -> float:
        value: float = QUARANTINED.labels(namespace, str(partition))._value.get()
        return value

    def close(self) -> None:
        self._stop.set()
        if self._running:
            self._running.join()
        self.writer.close()
        self.redis.close()


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    made = Installation(broker, redis_url, tmp_path, f"t{abs(hash(request.node.name))}")
    yield made
    made.close()


def test_a_namespace_without_a_folder_stops_only_itself(installation: Installation) -> None:
    live, gone = installation.namespace("live"), installation.namespace("gone")
    folder = installation.home / "namespaces" / gone.id
    aside = folder.rename(installation.home / "aside")
    port = free_port()
    serve_metrics(LOOPBACK, port, installation.health)
    installation.start()
    installation.folds(live.id, 0, 1)
    wait_until(lambda: installation.reasons().keys() == {(gone.id, 0), (gone.id, 1)}, _SECONDS)
    assert f"Namespace {gone.id} cannot be read" in installation.reasons()[gone.id, 0]
    assert [installation.is_quarantined(name, 1) for name in (live.id, gone.id)] == [0, 1]
    assert [line.partition(": ")[0] for line in quarantined(LOOPBACK, port)] == [
        f"{gone.id} partition 0", f"{gone.id} partition 1",
    ]  # fmt: skip
    http_answers(LOOPBACK, port, "/healthz")
    assert "matchloop_updater_quarantined" in urlopen(f"http://{LOOPBACK}:{port}/metrics").read().decode()
    aside.rename(folder)
    installation.folds(gone.id, 0, 1)
    wait_until(lambda: not installation.reasons(), _SECONDS)
    assert installation.is_quarantined(gone.id, 1) == 0
    installation.folds(live.id, 0, 1)


def test_a_namespace_of_another_log_size_is_forgotten_when_it_is_retired(installation: Installation) -> None:
    live, wide = installation.namespace("live"), installation.namespace("wide", partitions=3)
    installation.start()
    installation.folds(live.id, 0, 1)
    wait_until(lambda: len(installation.reasons()) == 2, _SECONDS)
    assert "was made for 3 partitions, the log has 2" in installation.reasons()[wide.id, 1]
    installation.online.deployment.retire(wide.id)
    wait_until(lambda: not installation.reasons(), _SECONDS)


class _AsKafkaAnswers(Reader):
    """The embedded broker answers a fetch beyond its end with nothing; Apache Kafka says that it is out of range."""

    def poll(self, timeout_ms: int, max_records: int = 1000) -> list[Record]:
        poll = self._consumer.poll

        def strict(**arguments: Any) -> Any:
            for place in self._consumer.assignment():
                if (position := self._consumer.position(place)) >= 1000:
                    raise OffsetOutOfRangeError({place: position})
            return poll(**arguments)

        self._consumer.poll = strict
        try:
            return super().poll(timeout_ms, max_records)
        finally:
            self._consumer.poll = poll


def test_a_position_that_the_log_does_not_hold_stops_one_partition(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "Reader", _AsKafkaAnswers)
    live = installation.namespace("live")
    beyond = Position(live.log, 1000)
    installation.state.commit(live.id, 1, None, Commit(beyond, [], 0, True, NO_ROWS, {}, []))
    installation.start()
    installation.folds(live.id, 0)
    wait_until(lambda: (live.id, 1) in installation.reasons(), _SECONDS)
    assert "The log does not hold offset 1000 of partition 1" in installation.reasons()[live.id, 1]
    installation.folds(live.id, 0)
    assert installation.reasons().keys() == {(live.id, 1)}
    installation.state.drop(live.id, 1)
    installation.folds(live.id, 1)
    wait_until(lambda: not installation.reasons(), _SECONDS)


class _ThreeAreGone(Reader):
    """Apache Kafka's answer where retention has removed the first three records: the embedded broker keeps all."""

    def poll(self, timeout_ms: int, max_records: int = 1000) -> list[Record]:
        gone = {place: at for place in self._consumer.assignment() if (at := self._consumer.position(place)) < 3}
        if gone:
            lost = {place.partition: at for place, at in gone.items()}
            raise PartitionsLost(lost, OffsetOutOfRangeError(gone))
        return super().poll(timeout_ms, max_records)


def test_where_the_log_begins_later_the_updater_goes_on_with_the_lake(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "Reader", _ThreeAreGone)
    live = installation.namespace("live")
    made = decision("u", 1_000, ["a"])
    events: list[Event] = [made, feedback(made, "a", received=1_001), Tick(time=1_002)]
    for partition in (0, 1):
        for event in events:
            installation.writer.send(installation.kafka.topics.events, None, encode([event]), partition).result()
    rows = [{"offset": offset, "position": 0, **row_of(event)} for offset, event in enumerate(events)]
    lake = partition_folder(installation.home / "lake" / "events", live.log, 0)
    put(lake / "0-3.parquet", EVENTS, rows)
    installation.start()
    installation.folds(live.id, 0)
    stored = installation.state.load(live.id, 0)
    assert [stored.rows.items, stored.rows.values[:, N].max()] == [["a"], 1.0]
    # The lake has nothing of the other: it waits for the sink, which then says that it is lost.
    wait_until(lambda: (live.id, 1) in installation.reasons(), _SECONDS)
    lost = partition_folder(installation.home / "lake" / "events", live.log, 1)
    lost.mkdir(parents=True)
    (lost / "0-3.lost").touch()
    installation.folds(live.id, 1)
    wait_until(lambda: not installation.reasons(), _SECONDS)
    assert len(installation.state.load(live.id, 1).rows.item) == 0


def test_a_gap_in_the_state_of_a_partition_stops_it_alone(installation: Installation) -> None:
    live = installation.namespace("live")
    place = installation.writer.send(installation.kafka.topics.events, None, encode([Tick(time=1)]), 0).result()
    at = Position(live.log, place.offset + 1)
    installation.state.commit(live.id, 0, None, Commit(at, [], 1, True, NO_ROWS, {}, []))
    installation.redis.delete(f"{installation.name}:{{0}}:{live.id}:deltas")
    installation.start()
    installation.folds(live.id, 1)
    wait_until(lambda: "has a gap in Redis" in installation.reasons().get((live.id, 0), ""), _SECONDS)
    installation.folds(live.id, 1)
    installation.state.drop(live.id, 0)
    installation.folds(live.id, 0)
