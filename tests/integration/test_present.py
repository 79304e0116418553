"""A lake is trusted only if it, and what serves, are as far as the log is."""

from pathlib import Path

import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import Unavailable
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from offline_training.jobs.present import await_present
from streaming.kafka import Log
from streaming.settings import KafkaSettings


class Still(Log):
    """A log that ends where it is said to."""

    def __init__(self, *ends: int) -> None:
        super().__init__(KafkaSettings(), "nowhere:9")
        self._ends = list(ends)

    def append_everywhere(self, value: bytes) -> list[int]:
        del value
        return self._ends

    def log_id(self, topic: str | None = None) -> str:
        del topic
        return "log"


class Installation:
    """A namespace that serves, an empty lake, and nobody at work."""

    def __init__(self, home: Path, redis_url: str, prefix: str) -> None:
        client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=prefix)
        self.home, self.online, self.state = Home(home), OnlineStore(client, settings), BanditStore(client, settings)

    def serve(self) -> None:
        namespace = Namespace(
            id="r-1", release="r", log="log", offsets=[0, 0], created=0, graph=Graph(4), base=NO_ROWS,
            starts=[Start()] * 2,
        )  # fmt: skip
        namespace.save(self.home.namespaces)
        self.online.deployment.activate(Active("r", "r-1"))

    def cover(self, partition: int, offset: int) -> None:
        folder = self.home.aside / "events" / "log=log" / f"partition={partition}"
        folder.mkdir(parents=True)
        (folder / f"0-{offset}.parquet").touch()

    def fold(self, partition: int, offset: int, log: str = "log") -> None:
        self.state.commit("r-1", partition, None, Commit(Position(log, offset), [], 0, True, NO_ROWS, {}, []))

    def check(self, log: Log) -> None:
        await_present(log, self.home, self.online, self.state, ManualClock(1), patience_seconds=0)


@pytest.fixture
def at(tmp_path: Path, redis_url: str, request: pytest.FixtureRequest) -> Installation:
    return Installation(tmp_path, redis_url, request.node.name[:40])


def test_before_anything_serves_nothing_is_waited_for(at: Installation) -> None:
    at.check(Still(5, 5))


def test_a_lake_that_is_behind_is_not_trusted(at: Installation) -> None:
    at.serve()
    at.cover(0, 5)
    at.cover(1, 3)
    with pytest.raises(Unavailable, match=r"Nothing is trained.*partitions \[1\].*offsets \[5\].*sink.*`--stale`"):
        at.check(Still(5, 5))


def test_nor_is_one_whose_updater_is_dead(at: Installation) -> None:
    at.serve()
    at.cover(0, 5)
    at.fold(0, 4)
    with pytest.raises(Unavailable, match=r"partition 0 at log@4, and nothing has moved.*updater"):
        at.check(Still(5, 0))


def test_or_has_not_noticed_that_the_log_began_anew(at: Installation) -> None:
    at.serve()
    at.cover(0, 5)
    at.fold(0, 9, "another")
    with pytest.raises(Unavailable, match="partition 0 at another@9"):
        at.check(Still(5, 0))


def test_a_log_with_more_partitions_waits_for_the_lake_alone(at: Installation) -> None:
    """Nobody can fold what was made for two of them: a retrain is the way on."""
    at.serve()
    at.cover(0, 5)
    at.check(Still(5, 0, 0))


def test_when_all_are_as_far_it_goes_on(at: Installation) -> None:
    at.serve()
    at.cover(0, 5)
    at.fold(0, 5)
    at.check(Still(5, 0))
