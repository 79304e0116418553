"""A champion that cannot be read: its successor is promoted all the same, and a retrain refuses before it trains."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import ReleaseRefused, Unavailable
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from infra.benchmarks.small_release import build_namespace, build_release, items
from offline_training.jobs.job import TrainJob
from offline_training.jobs.retrain import retrain
from offline_training.progress import silent
from offline_training.promotion.promote import promote, swap
from offline_training.promotion.registry import Registry
from offline_training.settings import MlflowSettings, SparkSettings, TrainingSettings
from streaming.settings import RewardSettings


class Notes(Registry):
    """A registry that is one list."""

    def __init__(self) -> None:
        super().__init__(MlflowSettings(), "http://127.0.0.1:9")
        self.champions: list[tuple[str, str | None]] = []

    def attach(self, release: str, texts: Mapping[str, str]) -> None:
        del release, texts

    def follow(
        self, aliases: Mapping[str, str | None], tags: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[str]:
        champion = str(aliases["champion"])
        self.champions.append((champion, (tags or {}).get(champion, {}).get("not_compared_with_champion")))
        return []


@pytest.fixture
def job(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> TrainJob:
    client, settings = (
        redis.Redis.from_url(redis_url),
        RedisSettings(prefix="".join(filter(str.isalnum, request.node.name))[-40:]),
    )
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
        why = promote(job.site, after.release, after.namespace).not_compared
        assert job.online.deployment.active() == after
        assert job.registry.champions[-1] == (after.release, why)
        assert (why is not None and "is not a release manifest" in why) == damaged


def test_nothing_older_than_what_serves_is_activated(job: TrainJob) -> None:
    """What serves has been folded up to offset 9 of partition 1; nobody folds what is to follow."""
    before, after = _made(job, 20), _made(job, 30)
    job.online.deployment.activate(before)
    following = Namespace.load(job.home.namespaces, after.namespace)
    job.state.commit(before.namespace, 1, None, Commit(Position("log", 9), [], 0, True, NO_ROWS, {}, []))
    ready_while: list[Active | None] = []

    def ready() -> None:
        ready_while.append(job.online.deployment.active())

    with pytest.raises(Unavailable, match=r"partition 1 at log@0, and nothing has moved .*`--stale`"):
        swap(following, job.online, job.state, patience_seconds=0, ready=ready)
    assert (job.online.deployment.active(), ready_while) == (before, [])
    assert job.online.deployment.namespaces() == [before.namespace]
    assert job.online.deployment.retired().keys() == {after.namespace}, "the next try goes on with it"

    swap(following, job.online, job.state, stale=True, patience_seconds=0, ready=ready)
    assert (job.online.deployment.active(), ready_while) == (after, [before])
    swap(Namespace.load(job.home.namespaces, before.namespace), job.online, job.state, patience_seconds=0)
    assert job.online.deployment.active() == before, "it is further than what served"


@pytest.mark.parametrize(
    ("logs", "position", "refused"),
    [
        ([], Position("log", 9), False),
        ([], Position("log", 8), True),
        (["log@20"], Position("log", 20), True),  # what serves has gone on to the log that began anew
        (["log@20"], Position("anew", 9), False),
        ([], Position("anew", 0), False),  # and here has not noticed it yet
    ],
)
def test_how_far_that_is(logs: list[str], position: Position, refused: bool, job: TrainJob) -> None:
    before, after = _made(job, 20), _made(job, 30)
    for name, stands, earlier in (
        (before.namespace, Position("anew" if logs else "log", 9), logs),
        (after.namespace, position, []),
    ):
        job.state.drop(name, 0)
        job.state.commit(name, 0, None, Commit(stands, earlier, 0, True, NO_ROWS, {}, []))
    job.online.deployment.activate(before)
    following = Namespace.load(job.home.namespaces, after.namespace)
    with pytest.raises(Unavailable) if refused else nullcontext():
        swap(following, job.online, job.state, patience_seconds=0)


def test_a_retrain_finds_out_before_it_trains(job: TrainJob) -> None:
    active = _made(job, 20)
    job.online.deployment.activate(active)
    _damage(job, active.release)
    with pytest.raises(ReleaseRefused, match=r"cannot be carried over .* `matchloop train` makes one that"):
        retrain(job, silent)
