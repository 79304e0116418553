"""The lake in an object store, beside one of the same log in a folder: they hold the same, and so does what is made of
them."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import ManualClock, SystemClock
from feature_store.contracts.errors import InvalidInput, LakeDamaged, Unavailable
from feature_store.contracts.events import Event, encode
from feature_store.definitions import DAY_MS
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from infra.server_checks import lake_check
from infra.settings import Settings
from offline_training.data.importer import import_data
from offline_training.data.lake import catalogue_items, positives_from
from offline_training.data.sources import Mapping
from offline_training.progress import silent
from offline_training.runs.watermark import freeze
from streaming import lake_events, lake_files, sink
from streaming.dead_letter import Outbox
from streaming.kafka import Log, Record, Writer
from streaming.lake_compaction import Compacted, compact
from streaming.lake_files import all_stretches, partition_folder
from streaming.lake_repair import Damage, check, repair
from streaming.lake_rows import EVENT_TOPIC
from streaming.log_reader import LogReader
from streaming.replay import compare
from streaming.settings import KafkaSettings, LakeSettings, RewardSettings
from tests.events import KEYRING, decision, feedback
from tests.object_stores import new_store, running_store
from tests.updaters import start_updater

KAFKA = KafkaSettings(partitions=1)
TOPICS = (KAFKA.events_topic, KAFKA.catalogue_topic)
REDIS = RedisSettings()
FILES = 10


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_store() as address:
        yield address


class Site:
    """A log that two sinks write to two lakes, and an updater that reads the one in the object store."""

    def __init__(self, root: Path, broker: str, redis_url: str, endpoint: str) -> None:
        self.store = new_store(endpoint)
        self.home, self.beside = Home(root / "one", self.store), Home(root / "another")
        self.log, self.client = Log(KAFKA, broker), redis.Redis.from_url(redis_url)
        self.log.create_topics()
        self.id = self.log.log_id()
        self.folder = partition_folder(self.store.root / "events", self.id, 0)
        self.state, online = BanditStore(self.client, REDIS), OnlineStore(self.client, REDIS)
        self.namespace = Namespace(
            id="n-1", release="r", log=self.id, offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
        )
        self.namespace.save(self.home.namespaces)
        online.deployment.add_namespace("n-1")
        stop, settings = threading.Event(), LakeSettings(flush_seconds=3_600)  # a file for each drain
        running = [
            threading.Thread(target=sink.run, args=(KAFKA, broker, home, online, settings, SystemClock(), stop))
            for home in (self.home, self.beside)
        ]
        for thread in running:
            thread.start()
        running.append(start_updater(KAFKA, broker, self.client, REDIS, self.home.root, stop))
        with contextlib.closing(Writer(broker)) as writer:
            for part in range(FILES):
                for n in range(5):
                    made = decision(f"{part}-{n}", part * DAY_MS + n, ["a", "b"], clusters=[0, 3], weights=[0.5, 0.5])
                    writer.send("events", None, encode([made, feedback(made, "a")]), 0).result()
                for home in (self.home, self.beside):
                    self.ends = sink.drain(self.log, home, SystemClock())
        stop.set()
        for thread in running:
            thread.join()

    def read(self, lake: LakePath) -> list[tuple[int, Event]]:
        return list(lake_events.read_events(lake, self.id, 0, 0))


@pytest.fixture(scope="module")
def made(broker: str, redis_url: str, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("homes"), broker, redis_url, endpoint)


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    content = {path: path.read_bytes() for path in made.folder.glob("*")}
    yield made
    for path in made.folder.glob("*"):
        path.unlink()
    for path, bytes_ in content.items():
        path.put(bytes_)


def test_it_holds_what_the_folder_holds(site: Site) -> None:
    assert len(all_stretches(site.folder)) >= FILES
    assert check(site.home.lake) == []
    assert site.read(site.home.lake) == site.read(site.beside.lake)
    assert lake_events.coverage(site.home.lake, site.id, 0) >= 2 * FILES
    assert [path.name for path in site.home.aside.glob("[!.]*")] == []  # nothing of it is in the home
    middle = 4 * DAY_MS
    assert lake_events.first_since(site.home.lake, site.id, 0, middle) == lake_events.first_since(
        site.beside.lake, site.id, 0, middle
    )


def test_the_state_is_the_replay_of_it(site: Site) -> None:
    """And of it alone: a reader without the log."""
    [found] = compare(site.namespace, site.state, LogReader(site.home.lake), RewardSettings())
    assert found.equal
    assert found.rows > 0


def test_a_second_sink_is_kept_away_also_one_of_another_home(site: Site, broker: str, tmp_path: Path) -> None:
    online, stop = OnlineStore(site.client, REDIS), threading.Event()
    arguments = (online, LakeSettings(), SystemClock(), stop)
    with pytest.raises(InvalidInput, match="belongs to another home directory than"):
        sink.run(KAFKA, broker, Home(tmp_path, site.store), *arguments)


def test_a_put_that_arrives_late_makes_the_sink_go_on_behind_it(site: Site, broker: str) -> None:
    """Of a sink that is gone: the new one read the same records again, and began before the put."""

    class Known(Outbox):
        def __init__(self) -> None:
            pass

    one = sink.PartitionSink(site.home.lake, EVENT_TOPIC, "late", 0, Known())
    another = sink.PartitionSink(site.home.lake, EVENT_TOPIC, "late", 0, Known())
    records = [Record(0, n, None, encode([decision(str(n), n, ["a"])]), n) for n in range(6)]
    for record in records[:4]:
        one.take(record)
    for record in records[:3]:
        another.take(record)
    assert one.flush()
    with pytest.raises(Unavailable, match="reaches to offset 4 by now"):
        another.flush()
    again = sink.PartitionSink(site.home.lake, EVENT_TOPIC, "late", 0, Known())
    assert again.next == 4
    for record in records[4:]:
        again.take(record)
    assert again.flush()
    assert [offset for offset, _ in lake_events.read_events(site.home.lake, "late", 0, 0)] == list(range(6))
    for path in list((site.store.root / "events" / "log=late").rglob("*")):
        path.unlink()


@pytest.mark.parametrize("what", ["missing", "torn"])
def test_what_is_damaged_is_read_again_from_kafka(site: Site, what: str) -> None:
    whole, lost = site.read(site.home.lake), all_stretches(site.folder)[1]
    path = site.folder / lost.path.name
    path.unlink() if what == "missing" else path.put(path.read_bytes()[:100])
    damage = Damage("events", site.id, 0, lost.start, lost.end, what)
    assert check(site.home.lake) == [damage]
    with pytest.raises(LakeDamaged):
        site.read(site.home.lake)
    assert repair(site.home, site.log, TOPICS, declare_lost=False) == [(damage, "read again")]
    assert check(site.home.lake) == []
    assert site.read(site.home.lake) == whole


def test_small_files_become_one_and_readers_see_the_same(site: Site) -> None:
    whole, files = site.read(site.home.lake), len([one for one in all_stretches(site.folder) if one.held])
    assert compact(site.home, LakeSettings(), 0) == Compacted(files, 1, 0, 0)
    assert len(all_stretches(site.folder)) == 1
    assert site.read(site.home.lake) == whole
    assert check(site.home.lake) == []
    assert compact(site.home, LakeSettings(), 0) == Compacted(0, 0, 0, 0)


def test_what_is_too_old_goes(site: Site, tmp_path: Path) -> None:
    """Of a home without the namespace that needs it."""
    (site.home.namespaces / "n-1").rename(tmp_path / "n-1")
    files = len([one for one in all_stretches(site.folder) if one.held])
    try:
        done = compact(site.home, LakeSettings(keep_days=1), SystemClock().now_ms() + 2 * DAY_MS)
    finally:
        (tmp_path / "n-1").rename(site.home.namespaces / "n-1")
    assert (done.expired, done.merged) == (files, 0)
    assert [one.path.suffix for one in all_stretches(site.folder)] == [lake_files.EXPIRED]
    with pytest.raises(LakeDamaged, match="removed by their age"):
        site.read(site.home.lake)
    assert check(site.home.lake) == []
    assert lake_events.coverage(site.home.lake, site.id, 0) >= 2 * FILES


def test_a_training_reads_what_it_would_of_a_folder(endpoint: str, tmp_path: Path) -> None:
    """Imported twice, so that the second import reads what the first one wrote."""
    source, homes = tmp_path / "source", (Home(tmp_path / "a", new_store(endpoint)), Home(tmp_path / "b"))
    source.mkdir()
    rows = [
        {"user_id": f"u{n % 7}", "item_id": f"i{n % 5}", "timestamp": 1_700_000_000 + n * 86_400} for n in range(90)
    ]
    for part, (begin, end) in enumerate(((0, 60), (30, 90))):
        pq.write_table(pa.Table.from_pylist(rows[begin:end]), source / "interactions.parquet")
        pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(part + 5)]}), source / "items.parquet")
        reports = [import_data(source, home, KEYRING, Mapping(), ManualClock(), silent) for home in homes]
        assert reports[0].interactions.accepted == reports[1].interactions.accepted == (60, 30)[part]
    frozen = [freeze(home.lake, tmp_path / f"frozen {number}") for number, home in enumerate(homes)]
    assert frozen[0] == frozen[1]
    assert frozen[0].files > 4
    found = [(catalogue_items(home.lake), positives_from(home.lake, 0, {})) for home in homes]
    assert found[0] == found[1]
    assert "i5" in found[0][0]


def test_doctor_tries_the_store(made: Site, endpoint: str, tmp_path: Path) -> None:
    def asked(url: str, endpoint: str) -> tuple[bool, str]:
        [found] = lake_check(Settings(home=tmp_path, lake=LakeSettings(url=url, endpoint=endpoint)))
        return found.ok, found.found

    assert asked(made.store.url, endpoint) == (
        True, f"{made.store.url}: written, refused where it was there, listed, read and deleted"
    )  # fmt: skip
    ok, found = asked("s3://nobody/x", endpoint)
    assert not ok
    assert "There is no bucket nobody" in found
    assert list(lake_check(Settings(home=tmp_path))) == []
