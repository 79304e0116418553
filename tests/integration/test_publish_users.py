"""Which users a promotion publishes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.definitions import HistoryEvent
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.user_features import UserCommands, UserFeatures
from offline_training.promotion.publishing import publish_users
from offline_training.runs.run import Inputs, Run
from offline_training.runs.runs import RELEASE, SETS, begin

NOTHING = Inputs(
    job="train", until_ms=None, excluded=[], settings="", seed=0, code="", log="", partitions=1, parent_release=None,
    parent_namespace=None,
)  # fmt: skip
User = tuple[str, list[str], int, list[tuple[str, int]]]  # with profile, when that was known, items and times
ADA: User = ("ada", ["age=5"], 1, [("i1", 10), ("i2", 20)])
BOB: User = ("bob", [], 0, [("i1", 30)])


class Installation:
    """Runs, and a store to publish their users in."""

    def __init__(self, home: Path, redis_url: str, prefix: str) -> None:
        self.runs, self.url, self.prefix, self._made = home / "runs", redis_url, prefix, 0
        self.online = self.store()

    def store(self, history_kept: int = 200) -> OnlineStore:
        settings = RedisSettings(prefix=self.prefix, history_kept=history_kept)
        return OnlineStore(redis.Redis.from_url(self.url), settings)

    def train(self, *users: User) -> tuple[Path, str]:
        self._made += 1
        run, release = Run(begin(self.runs, NOTHING, self._made)), f"r{self._made}"
        run.step(RELEASE, dict[str, str], lambda: {"id": release})
        (run.folder / SETS / "users").mkdir(parents=True)
        rows = [
            {
                "user": user, "profile": profile, "profile_time": known, "items": [item for item, _ in past],
                "kinds": ["click+"] * len(past), "positives": [True] * len(past), "times": [time for _, time in past],
            }
            for user, profile, known, past in users
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), run.folder / SETS / "users" / "part-0.parquet")
        return run.folder / SETS, release

    def publish(self, *users: User, online: OnlineStore | None = None) -> int:
        return publish_users(*self.train(*users), self.runs, online or self.online)

    def known(self, user: str) -> UserFeatures:
        commands, pipe = UserCommands(RedisSettings(prefix=self.prefix)), redis.Redis.from_url(self.url).pipeline()
        for command in commands.read(user):
            pipe.execute_command(*command)
        return commands.features(*pipe.execute())


@pytest.fixture
def at(tmp_path: Path, redis_url: str, request: pytest.FixtureRequest) -> Installation:
    return Installation(tmp_path, redis_url, request.node.name[-40:])


def test_those_who_are_not_what_they_were(at: Installation) -> None:
    assert at.publish(ADA, BOB) == 2
    assert at.publish(BOB, ADA) == 0
    later: User = ("ada", ["age=5"], 1, [("i1", 10), ("i2", 20), ("i3", 40)])
    assert at.publish(later, BOB, ("eve", ["age=7"], 2, [])) == 2
    assert at.known("ada").history == [HistoryEvent(i, "click+", t) for i, t in (("i3", 40), ("i2", 20), ("i1", 10))]
    assert at.known("eve").profile == ["age=7"]
    assert at.publish(("ada", ["age=6"], 3, ADA[3]), BOB) == 1
    assert at.known("ada").profile == ["age=6"]


def test_everybody_where_the_store_knows_nothing_of_the_last_time(at: Installation, redis_url: str) -> None:
    at.publish(ADA, BOB)
    client = redis.Redis.from_url(redis_url)
    client.delete(*client.keys(f"{at.prefix}:*"))  # it came back empty
    assert at.publish(ADA, BOB) == 2
    assert at.known("bob").history == [HistoryEvent("i1", "click+", 30)]


def test_or_the_sets_of_the_last_time_are_gone(at: Installation) -> None:
    sets, release = at.train(ADA)
    publish_users(sets, release, at.runs, at.online)
    sets.parent.rename(at.runs.parent / "elsewhere")
    assert at.publish(ADA) == 1


def test_or_more_is_kept_than_then(at: Installation) -> None:
    few = at.store(history_kept=1)
    assert at.publish(ADA, online=few) == 1
    assert len(at.known("ada").history) == 1
    assert at.publish(ADA) == 1
    assert len(at.known("ada").history) == 2


def test_what_was_begun_and_not_ended_is_done_again(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    at.publish(ADA)
    sets, release = at.train(BOB)
    with monkeypatch.context() as context:
        context.setattr(at.online.users, "note_published", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish_users(sets, release, at.runs, at.online)
    assert publish_users(sets, release, at.runs, at.online) == 1
