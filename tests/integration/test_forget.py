"""The rewriting after erasures: nothing leads to the users any more, and every replay gives the sums it gave."""

import random
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts import columns
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Decision, Erasure, Event, Merge, Profile, Tick, Withdrawal
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.lake_format import read
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.rewriting import reading, rewriting, undisturbed
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS, Sums
from offline_training.data.erasures import CarriedOut, pending_erasures
from offline_training.jobs.forget import Forgotten, forget
from streaming.fold import Fold
from streaming.lake_rows import row_of
from streaming.log_reader import LogReader
from streaming.replay import replay_partition
from streaming.settings import RewardSettings
from tests.api_server import wait_until
from tests.events import KEYRING, decision, feedback, interaction, unlogged
from tests.lakes import put

REWARDS = RewardSettings(window_seconds=60)
LOG = "log"
NOW = 2_000_000_000_000
USERS = [f"user {n}" for n in range(4)]


class Installed:
    """An installation at rest: one log with one partition, a namespace that begins somewhere in it."""

    def __init__(self, home: Path, redis_url: str, events: Sequence[Event], begins: int) -> None:
        self.path, self.events = home, events
        self.online = OnlineStore(redis.Redis.from_url(redis_url), RedisSettings(prefix=home.parent.name))
        self.state = BanditStore(redis.Redis.from_url(redis_url), RedisSettings(prefix=home.parent.name))
        empty = Namespace(
            id="r-1", release="r", log=LOG, offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
        )
        first = Fold(empty, REWARDS, Start())
        first.apply(events[:begins])
        self.namespace = msgspec.structs.replace(empty, offsets=[begins], starts=[first.start()])
        self.namespace.save(home / "namespaces")
        folder = home / "lake" / "events" / f"log={LOG}" / "partition=0"
        for start in range(0, len(events), 7):
            part = list(enumerate(events))[start : start + 7]
            rows = [{"offset": offset, "position": 0, **row_of(event)} for offset, event in part]
            put(folder / f"{start}-{start + len(part)}.parquet", columns.EVENTS, rows)

    def fold(self) -> Fold:
        namespace = Namespace.load(self.path / "namespaces", self.namespace.id)
        return replay_partition(namespace, 0, LogReader(self.path / "lake"), REWARDS, [Position(LOG, len(self.events))])

    def forget(self) -> Forgotten:
        return forget(Home(self.path), self.online, self.state, NOW, within_days=30)

    def text(self) -> str:
        """All that is on disk, decompressed."""
        found = []
        for path in sorted(path for path in self.path.rglob("*") if path.is_file()):
            found.append(path.read_bytes().decode("latin-1"))
            if path.suffix == ".parquet":
                found.append(repr(pq.read_table(path).to_pylist()))
        return "\n".join(found)


def random_log(dice: random.Random, length: int) -> list[Event]:
    """Visits, feedback, profiles and erasures of a few users, some of whom come back, at times that nearly rise."""
    events: list[Event] = []
    made: list[Decision] = []
    now = 1_700_000_000_000
    for number in range(length):
        now += dice.choice([0, 0, 500, 4_000])
        user = dice.choice(USERS)
        key = KEYRING.user_key(user)
        match dice.randrange(10):
            case 0:
                events.append(Erasure(user=key, time=now))
            case 1:
                events.append(Profile(user=key, time=now, attributes={"age": dice.randrange(90)}))
            case 2 if made:
                taken = dice.choice(made)
                events.append(Withdrawal(decision=taken.id, user=taken.user, time=now))
            case 3 | 4:
                nonce = number.to_bytes(8, "big")
                one = decision(user, now - dice.choice([0, 0, 300]), ["a", "b"], clusters=[0, 2], weights=[0.3, 0.7],
                               predicted=[0.1, 0.9], nonce=nonce)  # fmt: skip
                events.append(
                    msgspec.structs.replace(one, history=["secret"], profile=["age=5"], trace=f"trace of {one.id}")
                )
                made.append(one)
            case 5 if number % 3 == 0:
                one = unlogged(user, now, nonce=(number // 9).to_bytes(8, "big"))
                events.append(feedback(one, "c", received=now + 10))
            case 5:
                events.append(interaction(user, "c", event=f"order {number % 7}", received=now + 1))
            case 6:
                other = KEYRING.user_key(dice.choice(["somebody", *USERS]))
                events.append(Merge(user=key, account=other, time=now))
            case _ if made:
                about = dice.choice(made[-6:])
                told = feedback(about, dice.choice("ab"), dice.choice(["click", "view"]), event=f"event {number % 9}",
                                received=now)  # fmt: skip
                events.append(told if dice.random() < 0.9 else msgspec.structs.replace(told, user=key))
            case _:
                events.append(Tick(time=now))
    return events


def forgotten_up_to(events: Sequence[Event]) -> dict[str, int]:
    """By user key the place in the log up to which nothing is to be left: of their last erasure, or of their last
    merging with somebody who was erased later, or merged with such a one."""
    places: dict[str, int] = {}
    untils: dict[str, int] = {}
    while True:
        before = dict(places)
        for n, event in enumerate(events):
            if not isinstance(event, Erasure | Merge):
                continue
            if isinstance(event, Erasure) or event.time <= untils.get(event.account, -1):
                places[event.user] = max(n, places.get(event.user, -1))
                untils[event.user] = max(event.time, untils.get(event.user, -1))
        if places == before:
            return places


@pytest.mark.parametrize("seed", range(12))
def test_a_rewritten_lake_gives_the_same_sums_and_names_nobody_who_was_erased(
    tmp_path: Path, redis_url: str, seed: int
) -> None:
    dice = random.Random(seed)
    events = random_log(dice, 150)
    last = forgotten_up_to(events)
    home = Installed(tmp_path / "home", redis_url, events, dice.choice([0, 40, 90]))
    before = home.fold()
    done = home.forget()
    assert done.users == len(last)
    assert done.waiting == 0
    after = home.fold()
    keys = Sums.of(before.sums.rows(), after.sums.rows()).rows()
    assert np.abs(before.sums.select(keys) - after.sums.select(keys)).max() < 1e-9
    assert after.open_decisions == before.open_decisions
    assert after.stream_time == before.stream_time
    text = home.text()
    for n, event in enumerate(events):
        if isinstance(event, Decision) and n < last.get(event.user, -1):
            assert event.id not in text
    for key, n in last.items():
        if not any(key in (getattr(event, "user", None), getattr(event, "account", None)) for event in events[n + 1 :]):
            assert key not in text
    assert home.forget() == Forgotten(0, 0, 0)  # nothing is left to do


def _home(tmp_path: Path, redis_url: str) -> tuple[Installed, str, Decision]:
    erased, other = decision("ada", 1_000, ["a", "b"]), decision("bob", 1_000, ["a"])
    events: list[Event] = [
        erased, other, feedback(erased, "a", event="my bank account"), feedback(other, "a"),
        Profile(user=erased.user, time=2_500, attributes={"city": "Wellington"}),
        Erasure(user=erased.user, time=3_000), Tick(time=4_000),
    ]  # fmt: skip
    home = Installed(tmp_path / "home", redis_url, events, 2)
    ada, bob = erased.user, other.user
    lake = home.path / "lake"
    rows: list[dict[str, Any]] = [
        {"user": user, "item": "a", "type": "click", "value": 1.0, "time": time, "written": written}
        for user, time, written in ((ada, 10, None), (bob, 10, None), (ada, 20, 3_001), (ada, 2_900, None))
    ]
    put(lake / "interactions" / "month=1970-01" / "x.parquet", columns.INTERACTIONS, rows)
    put(lake / "histories" / "x.parquet", columns.INTERACTIONS, rows[:2])
    users = [{"user": user, "attributes": '{"city":"Wellington"}', "imported": 5_000} for user in (ada, bob)]
    put(lake / "users" / "users.parquet", columns.USERS, users)
    sets = home.path / "runs" / "one" / "training_sets"
    trained = [{"user": user, "items": ["a"], "times": [10]} for user in (ada, bob)]
    put(sets / "users" / "part-0.parquet", None, trained)
    put(sets / "impressions" / "part-0.parquet", None, [{"user": ada, "decision": erased.id, "time": 1_000}])
    return home, ada, erased


def test_what_was_imported_and_trained_from_goes_too(tmp_path: Path, redis_url: str) -> None:
    home, ada, erased = _home(tmp_path, redis_url)
    assert ada in home.text()
    assert home.forget() == Forgotten(users=1, files=8, waiting=0)
    interactions = home.path / "lake" / "interactions" / "month=1970-01" / "x.parquet"
    bob = KEYRING.user_key("bob")
    rows = read(interactions, columns.INTERACTIONS).to_pylist()
    assert [(row["user"], row["time"]) for row in rows] == [(bob, 10), (ada, 20)]
    interactions.unlink()  # with the one row that was written after the erasure
    text = home.text()
    assert ada not in text
    assert all(told not in text for told in (erased.id, "my bank account"))
    assert text.count("Wellington") > 0  # bob's
    kept = pq.read_table(home.path / "lake" / "users" / "users.parquet").to_pylist()
    assert [row["user"] for row in kept] == [bob]
    (starts,) = Namespace.load(home.path / "namespaces", "r-1").starts
    assert len(starts.opened) == 2
    assert erased.id not in starts.opened
    assert CarriedOut.load(home.path / "lake").until(ada) == 3_000
    assert CarriedOut.load(home.path / "lake").until(bob) == -1


def test_an_erasure_waits_until_every_namespace_has_folded_it(tmp_path: Path, redis_url: str) -> None:
    home, ada, _ = _home(tmp_path, redis_url)
    home.online.deployment.add_namespace("r-1")
    assert home.forget() == Forgotten(users=0, files=0, waiting=1)
    assert [erasure.user for erasure in pending_erasures(home.path / "lake")] == [ada]
    home.state.commit("r-1", 0, None, Commit(Position(LOG, 6), [], 0, True, NO_ROWS, {}, []))
    assert home.forget().users == 1


def test_an_erasure_waits_while_a_slate_of_a_merged_visitor_is_open(tmp_path: Path, redis_url: str) -> None:
    """What came of it later would find it masked in the lake, and open in the state."""
    slate, ada = decision("visit", 1_000, ["a"]), KEYRING.user_key("ada")
    events: list[Event] = [slate, Merge(user=slate.user, account=ada, time=2_000), Erasure(user=ada, time=3_000)]
    home = Installed(tmp_path / "home", redis_url, events, 0)
    home.online.deployment.add_namespace("r-1")
    opened = home.fold().start().opened
    assert list(opened) == [slate.id]
    home.state.commit("r-1", 0, None, Commit(Position(LOG, 3), [], 0, True, NO_ROWS, opened, []))
    assert home.forget() == Forgotten(users=0, files=0, waiting=1)
    home.state.commit("r-1", 0, Position(LOG, 3), Commit(Position(LOG, 4), [], 0, True, NO_ROWS, {}, [slate.id]))
    assert home.forget().users == 2
    assert slate.user not in home.text()


def test_the_state_of_a_namespace_at_rest_is_dropped_where_a_decision_of_theirs_is_open(
    tmp_path: Path, redis_url: str
) -> None:
    home, _, _ = _home(tmp_path, redis_url)
    (start,) = home.namespace.starts
    home.state.commit("r-1", 0, None, Commit(Position(LOG, 2), [], 0, True, NO_ROWS, start.opened, []))
    home.forget()
    assert home.state.position("r-1", 0) is None


def test_a_rewriting_that_was_killed_is_all_or_nothing(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("old")
    with rewriting(Home(tmp_path)) as rewrite:
        rewrite.draft(tmp_path / "a").write_text("new")
    with reading(Home(tmp_path)):
        assert (tmp_path / "a").read_text() == "old"
    with rewriting(Home(tmp_path)) as rewrite:
        for name in "ab":
            rewrite.draft(tmp_path / name).write_text("new")
        with pytest.raises(Unavailable, match="cannot be rewritten now"), rewriting(Home(tmp_path)):
            pass
        shutil.copytree(tmp_path / ".rewrite", tmp_path / "drafts")
        rewrite.publish()
    assert [(tmp_path / name).read_text() for name in "ab"] == ["new", "new"]
    (tmp_path / "b").write_text("old")  # as if killed after the first file
    (tmp_path / "drafts" / "0").unlink()
    (tmp_path / "drafts" / "replaces.json").write_text('["a","b"]')
    (tmp_path / "drafts").rename(tmp_path / ".rewrite")
    with reading(Home(tmp_path)):
        assert [(tmp_path / name).read_text() for name in "ab"] == ["new", "new"]


def test_no_rewriting_begins_while_somebody_must_not_be_disturbed(tmp_path: Path) -> None:
    with (
        undisturbed(Home(tmp_path)),
        pytest.raises(Unavailable, match="a training, a rollback"),
        rewriting(Home(tmp_path)),
    ):
        pass
    with reading(Home(tmp_path)), rewriting(Home(tmp_path)):
        pass


def test_nobody_reads_a_mixture(tmp_path: Path) -> None:
    """A reader who has begun reads the old files to the end; the new ones count when it is done."""
    names = [f"{number}" for number in range(20)]
    for name in names:
        (tmp_path / name).write_text("old")
    with rewriting(Home(tmp_path)) as rewrite:
        for name in names:
            rewrite.draft(tmp_path / name).write_text("new")
        publishing = threading.Thread(target=rewrite.publish)
        with reading(Home(tmp_path)):
            found = [(tmp_path / name).read_text() for name in names[:10]]
            publishing.start()
            wait_until((tmp_path / ".rewrite" / ".replaces.json").exists)
            found += [(tmp_path / name).read_text() for name in names[10:]]
        publishing.join()
        assert set(found) == {"old"}
    with reading(Home(tmp_path)):
        assert {(tmp_path / name).read_text() for name in names} == {"new"}
