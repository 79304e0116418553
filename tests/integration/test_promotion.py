"""A champion that cannot be read: its successor is promoted all the same, and a retrain refuses before it trains."""

from pathlib import Path

import msgspec
import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import ReleaseRefused
from feature_store.home import Home
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import build_namespace, build_release, items
from offline_training.jobs.job import TrainJob
from offline_training.jobs.retrain import retrain
from offline_training.progress import silent
from offline_training.promotion.promote import promote
from offline_training.promotion.registry import Registry
from offline_training.settings import MlflowSettings, SparkSettings, TrainingSettings
from streaming.settings import RewardSettings


class Notes(Registry):
    """A registry that is one list."""

    def __init__(self) -> None:
        super().__init__(MlflowSettings(), "http://127.0.0.1:9")
        self.champions: list[tuple[str, str | None]] = []

    def set_champion(self, release: str, not_compared: str | None = None) -> None:
        self.champions.append((release, not_compared))


@pytest.fixture
def job(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> TrainJob:
    client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=request.node.name[:30])
    home = Home(tmp_path)
    return TrainJob(
        home, TrainingSettings(), SparkSettings(), RewardSettings(), Notes(), OnlineStore(client, settings),
        BanditStore(client, settings), ManualClock(9), "log", 2,
    )  # fmt: skip


def _made(job: TrainJob, count: int) -> Active:
    release = build_release(job.home.releases, catalogue=items(count))
    return Active(release, build_namespace(job.home.namespaces, job.home.releases, release, "log", 2))


def _damage(job: TrainJob, release: str) -> None:
    (job.home.releases / release / "manifest.json").write_bytes(msgspec.json.encode({}))


def test_a_damaged_champion_does_not_keep_its_successor_out(job: TrainJob) -> None:
    assert isinstance(job.registry, Notes)
    for damaged in (False, True):
        before, after = _made(job, 20 + damaged), _made(job, 30 + damaged)
        job.online.deployment.activate(before)
        if damaged:
            _damage(job, before.release)
        why = promote(job.home, after.release, after.namespace, job.registry, job.online, job.state, None)
        assert job.online.deployment.active() == after
        assert job.registry.champions[-1] == (after.release, why)
        assert (why is not None and "is not a release manifest" in why) == damaged


def test_a_retrain_finds_out_before_it_trains(job: TrainJob) -> None:
    active = _made(job, 20)
    job.online.deployment.activate(active)
    with pytest.raises(ReleaseRefused, match=r"2 partitions, the log has 3\. `matchloop train` makes one that begins"):
        retrain(TrainJob(**{**vars(job), "partitions": 3}), silent)
    _damage(job, active.release)
    with pytest.raises(ReleaseRefused, match=r"cannot be carried over .* `matchloop train` makes one that"):
        retrain(job, silent)
