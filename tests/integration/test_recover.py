"""Redis is emptied under load, or set back, and comes back with all that was learnt."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
import redis.asyncio

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.events import Erasure, Event, Tick, encode
from feature_store.deployment_note import check_current, read_note
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.deployment import Active
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from feature_store.shown import DigestIndex, Shown, digests
from feature_store.sums import NO_ROWS, Sums
from feature_store.user_features import NOBODY, UserFeatures
from infra.backup import backup, restore
from offline_training.jobs.recover import recover
from streaming import catalogue_log, sink
from streaming.deployment_keeper import DeploymentKeeper
from streaming.kafka import Log, Writer
from streaming.log_reader import LogReader
from streaming.replay import compare
from streaming.settings import KafkaSettings, LakeSettings, RewardSettings
from tests.api_server import wait_until
from tests.events import KEYRING, decision, feedback
from tests.updaters import start_updater

KAFKA = KafkaSettings(partitions=2)
SETTINGS = RedisSettings(prefix="lost")
NOW = SystemClock().now_ms()


class Running:
    """A sink, an updater, and visits that come as long as it is open."""

    def __init__(
        self, broker: str, redis_url: str, root: Path, kafka: KafkaSettings = KAFKA, namespace: Namespace | None = None
    ) -> None:
        """namespace: what is in the home already, without anything in Redis."""
        self.home, self.redis_url = Home(root), redis_url
        self.client = redis.Redis.from_url(redis_url)
        self.online, self.state = OnlineStore(self.client, SETTINGS), BanditStore(self.client, SETTINGS)
        self.log, self.writer = Log(kafka, broker), Writer(broker)
        self.health = sink.new_health()
        self._stop, self._visited = threading.Event(), threading.Event()
        self.log.create_topics()
        self._events = kafka.topics.events
        self.namespace = namespace or Namespace(
            id="r-1", release="r", log=self.log.log_id(), offsets=[0, 0], created=0, graph=Graph(4), base=NO_ROWS,
            starts=[Start(), Start()],
        )  # fmt: skip
        if namespace is None:
            self.namespace.save(self.home.namespaces)
            self.online.deployment.activate(Active("r", "r-1"))
        else:
            self._visited.set()
        keeper = DeploymentKeeper(root, SETTINGS.prefix, self.online, self.health)
        settings = LakeSettings(flush_seconds=0.05)
        arguments = (kafka, broker, self.home, self.online, settings, SystemClock(), self._stop, self.health)
        self._threads = [
            threading.Thread(target=sink.run, args=(*arguments, keeper.step)),
            threading.Thread(target=self._visit),
        ]
        for thread in self._threads:
            thread.start()
        self._threads.append(start_updater(kafka, broker, self.client, SETTINGS, root, self._stop))

    def append(self, event: Event) -> None:
        self.writer.send(self._events, getattr(event, "user", None), encode([event])).result()

    def end_visits(self) -> None:
        self._visited.set()
        self._threads[1].join()

    def close(self) -> None:
        self._visited.set()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.writer.close()

    def folded_to_the_end(self) -> bool:
        ends = self.log.append_everywhere(encode([Tick(time=NOW)]))
        positions = [self.state.position("r-1", n) or Position("", 0) for n in range(2)]
        return all(place.offset >= end - 1 for place, end in zip(positions, ends, strict=True))

    def sums(self) -> dict[str, list[float]]:
        rows = Sums.of(*(self.state.load("r-1", n).rows for n in range(2))).rows()
        names = (f"{rows.items[i]} {c}" for i, c in zip(rows.item.tolist(), rows.cluster.tolist(), strict=True))
        return dict(zip(names, rows.values.tolist(), strict=True))

    def recover(self) -> None:
        noted = read_note(self.home.root, SETTINGS.prefix)
        assert noted is not None
        done = recover(self.home, noted, self.online, self.state, self.log, SystemClock(), 30, lambda _, __: None)
        assert (done.release, done.namespace, done.missing) == ("r", "r-1", [])

    def features(self, user: str) -> UserFeatures:
        async def ask() -> UserFeatures:
            async with redis.asyncio.Redis.from_url(self.redis_url) as client:
                return await AsyncOnlineStore(client, SETTINGS).users.get(KEYRING.user_key(user))

        return asyncio.run(ask())

    def _visit(self) -> None:
        number = 0
        while not self._visited.is_set():
            made = decision(f"user {number % 20}", NOW + number, ["a", "b"], clusters=[0, 3], weights=[0.25, 0.75])
            self.append(made)
            self.append(feedback(made, "a", event=str(number), received=NOW + number))
            number += 1


@pytest.fixture
def running(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Running]:
    Log(KAFKA, broker).create_topics()
    made = Running(broker, redis_url, tmp_path)
    with contextlib.closing(made):
        yield made


def test_an_emptied_redis_comes_back_under_load_with_all_that_was_learnt(running: Running) -> None:
    online, erased = running.online, decision("erased", NOW, ["a"])
    for item in ("kept", "taken down"):
        running.writer.send("catalogue", None, catalogue_log.encode_item(Item(id=item), NOW)).result()
    running.writer.send("catalogue", None, catalogue_log.encode_deletion("taken down", NOW)).result()
    running.append(erased)
    running.append(feedback(erased, "a", received=NOW))
    running.append(Erasure(user=erased.user, time=NOW + 1))
    wait_until(lambda: [item for item, _ in online.catalogue.items()] == ["kept"])
    wait_until(lambda: len(running.features("user 3").history) > 0)
    wait_until(lambda: read_note(running.home.root, SETTINGS.prefix) is not None)

    running.client.flushall()
    with pytest.raises(Unavailable, match=r"empty or older than this installation.*matchloop recover"):
        check_current(running.home.root, SETTINGS.prefix, online.deployment.to_note())
    wait_until(lambda: any("matchloop recover" in part.reason for part in running.health.quarantined()))
    running.recover()

    assert online.deployment.active() == Active("r", "r-1")
    assert online.deployment.namespaces() == ["r-1"]
    check_current(running.home.root, SETTINGS.prefix, online.deployment.to_note())
    running.end_visits()
    wait_until(running.folded_to_the_end)
    wait_until(lambda: [item for item, _ in online.catalogue.items()] == ["kept"])
    reader = LogReader(running.home.lake, running.log)
    assert all(check.equal for check in compare(running.namespace, running.state, reader, RewardSettings()))
    user = running.features("user 3")
    assert len(user.history) > 0
    assert isinstance(user.shown, Shown)
    index = DigestIndex(digests(["a", "b", "c"]))
    assert sorted(index.positions(user.shown.digests(), 3).tolist()) == [0, 1]
    assert running.features("erased") == NOBODY
    wait_until(lambda: not running.health.quarantined())


def test_what_was_learnt_is_the_same_as_before(running: Running) -> None:
    wait_until(lambda: len(running.sums()) > 0)
    running.end_visits()
    wait_until(running.folded_to_the_end)
    wait_until(lambda: read_note(running.home.root, SETTINGS.prefix) is not None)
    before = running.sums()
    running.client.flushall()
    running.recover()
    after = running.sums()
    assert after.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-9)


def test_a_backup_restored_elsewhere_has_learnt_the_same_and_goes_on(
    running: Running, broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With another Redis, and a Kafka that has nothing."""
    wait_until(lambda: len(running.sums()) > 0)
    running.end_visits()
    wait_until(running.folded_to_the_end)
    wait_until(lambda: read_note(running.home.root, SETTINGS.prefix) is not None)
    sink.drain(running.log, running.home, SystemClock())
    folder = tmp_path_factory.mktemp("backups") / "today"
    made = backup(running.home, folder, NOW, with_secret=False)
    before = running.sums()

    elsewhere = Home(tmp_path_factory.mktemp("elsewhere") / "home")
    assert restore(folder, elsewhere) == made
    kafka = KafkaSettings(partitions=2, events_topic="elsewhere", catalogue_topic="elsewhere-items")
    namespace = Namespace.load(elsewhere.namespaces, "r-1")
    url = redis_url.removesuffix("/0") + "/1"
    with contextlib.closing(Running(broker, url, elsewhere.root, kafka, namespace)) as there:
        there.recover()
        after = there.sums()
        assert after.keys() == before.keys()
        for name, values in before.items():
            np.testing.assert_allclose(after[name], values, rtol=1e-9)
        assert there.features("user 3").history == running.features("user 3").history
        late = decision("user 3", SystemClock().now_ms(), ["c"])
        there.append(late)
        there.append(feedback(late, "c", event="late", received=late.time))
        wait_until(lambda: any(name.startswith("c ") for name in there.sums()))


def test_a_backup_is_whole_or_refused(running: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    wait_until(lambda: read_note(running.home.root, SETTINGS.prefix) is not None)
    wait_until(lambda: len(running.sums()) > 0)
    sink.drain(running.log, running.home, SystemClock())
    folder, elsewhere = (
        tmp_path_factory.mktemp("backups") / "today",
        Home(tmp_path_factory.mktemp("elsewhere") / "home"),
    )
    backup(running.home, folder, NOW, with_secret=False)
    with pytest.raises(InvalidInput, match="is there already"):
        backup(running.home, folder, NOW, with_secret=False)
    with pytest.raises(InvalidInput, match="is not empty"):
        restore(folder, running.home)
    with pytest.raises(InvalidInput, match="holds no backup"):
        restore(folder.parent, elsewhere)
    next(folder.rglob("*.parquet")).unlink()
    with pytest.raises(Unavailable, match="files are missing or were changed"):
        restore(folder, elsewhere)
    assert not elsewhere.lake.exists()


def test_what_redis_forgot_is_not_noted_over_what_it_knew(running: Running) -> None:
    """A failover lost the last activation."""
    wait_until(lambda: read_note(running.home.root, SETTINGS.prefix) is not None)
    older = running.online.deployment.to_note()
    running.online.deployment.activate(Active("r2", "r-1"))
    wait_until(lambda: _noted(running) == "r2")
    running.client.set(f"{SETTINGS.prefix}:deployment_version", older.version)
    running.client.hset(f"{SETTINGS.prefix}:active", mapping=older.active)
    wait_until(lambda: any("r2 serves" in part.reason for part in running.health.quarantined()))
    assert _noted(running) == "r2"


def _noted(running: Running) -> str | None:
    noted = read_note(running.home.root, SETTINGS.prefix)
    return None if noted is None else noted.active["release"]
