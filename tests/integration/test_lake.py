"""A damaged lake: every reader says so, and it is read again from Kafka."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import LakeDamaged
from feature_store.contracts.events import Event, encode
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from offline_training.runs.watermark import freeze
from streaming import lake_events, sink
from streaming.kafka import Log, Writer
from streaming.lake_files import all_stretches, partition_folder
from streaming.lake_repair import Damage, check, repair
from streaming.settings import KafkaSettings, LakeSettings
from tests.api_server import wait_until
from tests.events import decision

KAFKA = KafkaSettings(partitions=1)
TOPICS = (KAFKA.topics.events, KAFKA.topics.catalogue)


class Lake:
    """Thirty decisions in three files at least."""

    def __init__(self, root: Path, broker: str, redis_url: str) -> None:
        self.home, self.log = Home(root), Log(KAFKA, broker)
        self.log.create_topics()
        self.id = self.log.log_id()
        self.folder = partition_folder(self.home.aside / "events", self.id, 0)
        stop = threading.Event()
        with redis.Redis.from_url(redis_url) as client, contextlib.closing(Writer(broker)) as writer:
            online = OnlineStore(client, RedisSettings())
            # Nothing is written before somebody wants it: a file for each drain.
            settings = LakeSettings(flush_seconds=3_600)
            arguments = (KAFKA, broker, self.home, online, settings, SystemClock(), stop)
            running = threading.Thread(target=sink.run, args=arguments)
            running.start()
            wait_until((self.home.aside / ".sink.lock").exists)
            for part in range(3):
                for n in range(10):
                    writer.send("events", None, encode([decision(f"{part}-{n}", n, ["a"])]), 0).result()
                sink.drain(self.log, self.home, SystemClock())
            stop.set()
            running.join()
        self.whole = self.read()
        self.files = [Path(str(one.path)) for one in all_stretches(self.folder)]

    def read(self) -> list[tuple[int, Event]]:
        return list(lake_events.read_events(self.home.lake, self.id, 0, 0))


@pytest.fixture(scope="module")
def made(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("home"), broker, redis_url)


@pytest.fixture
def lake(made: Lake) -> Iterator[Lake]:
    content = {path: path.read_bytes() for path in made.files}
    yield made
    for found in all_stretches(made.folder):
        found.path.unlink()
    for path, bytes_ in content.items():
        path.write_bytes(bytes_)


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(("damage", "what"), [(Path.unlink, "missing"), (_tear, "torn")])
def test_what_is_damaged_is_read_again_from_kafka(lake: Lake, damage: Callable[[Path], None], what: str) -> None:
    assert check(lake.home.lake) == []
    damage(lake.files[1])
    start, end = map(int, lake.files[1].stem.split("-"))
    found = Damage("events", lake.id, 0, start, end, what)
    assert check(lake.home.lake) == [found]
    with pytest.raises(LakeDamaged):
        lake.read()
    assert repair(lake.home, lake.log, TOPICS, declare_lost=False) == [(found, "read again")]
    assert check(lake.home.lake) == []
    assert lake.read() == lake.whole


def test_nothing_is_trained_on_a_lake_with_a_hole(lake: Lake, tmp_path: Path) -> None:
    lake.files[1].unlink()
    with pytest.raises(LakeDamaged, match="are missing"):
        freeze(lake.home.lake, tmp_path / "frozen")


def test_files_that_overlap_are_separated(lake: Lake) -> None:
    """Two sinks wrote the same log."""
    start, end = map(int, lake.files[1].stem.split("-"))
    before = int(lake.files[0].stem.split("-")[0])
    (lake.folder / f"{before}-{start + 4}.parquet").write_bytes(b"")
    lake.files[0].unlink()
    repair(lake.home, lake.log, TOPICS, declare_lost=False)  # 4 more than before, read again
    assert check(lake.home.lake) == []
    assert lake.read() == lake.whole
    files = [one.path.name for one in all_stretches(lake.folder)]
    assert files[:2] == [f"{before}-{start + 4}.parquet", f"{start + 4}-{end}.parquet"]


def test_what_kafka_does_not_have_either_is_marked_as_lost_if_asked(lake: Lake) -> None:
    gone = partition_folder(lake.home.aside / "events", "gone", 0)
    gone.parent.mkdir()
    lake.folder.rename(gone)
    try:
        (gone / lake.files[1].name).unlink()
        [(found, outcome)] = repair(lake.home, lake.log, TOPICS, declare_lost=False)
        assert (found.log, outcome) == ("gone", "not in Kafka")
        [(found, outcome)] = repair(lake.home, lake.log, TOPICS, declare_lost=True)
        assert outcome == "marked as lost"
        assert check(lake.home.lake) == []
        expected = [one for one in lake.whole if not found.start <= one[0] < found.end]
        assert list(lake_events.read_events(lake.home.lake, "gone", 0, 0)) == expected
    finally:
        gone.rename(lake.folder)
