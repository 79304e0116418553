"""A rollback on real servers: what is left out teaches nothing, everything else stays, and the law holds."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import ManualClock, SystemClock
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.events import Event, encode
from feature_store.decay import Decay
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import SERVED, N, Sums
from offline_training.jobs.rollback import Exclusion, Installation, activate, perform, plan_rollback
from streaming import sink
from streaming.kafka import Log, Reader, Writer
from streaming.log_reader import LogReader
from streaming.replay import compare
from streaming.settings import KafkaSettings, LakeSettings, RewardSettings
from tests.api_server import wait_until
from tests.events import KEYRING, decision, feedback
from tests.rows import rows_of
from tests.updaters import start_updater

REWARDS = RewardSettings()
BEFORE, AFTER = 1_000_000, 2_000_000  # ms; the cut lies between
CUT = 1_500_000
BASE = rows_of({":a": [10, 10, 4, 4, 5]})

EARLY = decision("ada", BEFORE, ["a", "b"])
OPEN = decision("ada", CUT - 1, ["c"])
BOT = decision("bot", BEFORE + 5, ["b"])
FEVERISH = decision("ada", AFTER, ["a"])
VISITS: list[Event] = [
    EARLY, feedback(EARLY, "a"), OPEN, BOT, feedback(BOT, "b"), FEVERISH,
    feedback(FEVERISH, "a", received=AFTER + 1), feedback(OPEN, "c", received=AFTER + 2),
]  # fmt: skip


class Running:
    """A log of its own with what VISITS say in it, folded by an updater and kept by a sink, and a namespace serving."""

    def __init__(self, broker: str, redis_url: str, home: Path, name: str, memory_days: float | None) -> None:
        self.kafka = KafkaSettings(partitions=2, events_topic=name, catalogue_topic=f"{name}-c")
        self.broker, self.stop = broker, threading.Event()
        log = Log(self.kafka, broker)
        log.create_topics()
        self.client, prefix = redis.Redis.from_url(redis_url), RedisSettings(prefix=name)
        online, state = OnlineStore(self.client, prefix), BanditStore(self.client, prefix)
        self.at = Installation(Home(home), REWARDS, online, state, log, ManualClock(AFTER + 1_000))
        namespace = Namespace(
            id="r-1", release="r", log=log.log_id(), offsets=[0, 0], created=0, graph=Graph(4), base=BASE,
            starts=[Start(stream_time=1_000)] * 2, memory_days=memory_days,
        )  # fmt: skip
        namespace.save(home / "namespaces")
        online.deployment.activate(Active("r", "r-1"))
        self.writer = Writer(broker)
        self.append(*VISITS)
        lake = LakeSettings(flush_seconds=0.05)
        sinking = (self.kafka, broker, Home(home), online, lake, SystemClock(), self.stop)
        sinks = threading.Thread(target=sink.run, args=sinking)
        sinks.start()
        self.threads = [sinks, start_updater(self.kafka, broker, self.client, prefix, home, self.stop)]

    def append(self, *events: Event) -> list[int]:
        topic = self.kafka.topics.events
        places = [self.writer.send(topic, getattr(e, "user", "x"), encode([e])).result() for e in events]
        return [max((p.offset + 1 for p in places if p.partition == n), default=0) for n in range(2)]

    def folded(self, name: str, ends: list[int]) -> bool:
        positions = [self.at.state.position(name, n) for n in range(2)]
        return all(end == 0 or (p is not None and p.offset >= end) for p, end in zip(positions, ends, strict=True))

    def rows(self, name: str) -> Sums:
        base = Namespace.load(self.at.home.namespaces, name).base
        return Sums.of(base, *(self.at.state.load(name, n).rows for n in range(2)))

    def law_holds(self, name: str) -> bool:
        namespace = Namespace.load(self.at.home.namespaces, name)
        found = compare(namespace, self.at.state, LogReader(self.at.home.lake, self.at.log), REWARDS)
        return len(found) > 0 and all(partition.equal for partition in found)

    def close(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.writer.close()
        self.client.close()


@pytest.fixture
def running(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    name = request.node.name.replace("_", "-")[:38]
    made = Running(broker, redis_url, tmp_path, name, getattr(request, "param", None))
    yield made
    made.close()


def _excluded(*users: str) -> dict[str, str]:
    return {KEYRING.user_key(user): user for user in users}


def test_what_came_after_a_time_is_left_out_and_the_way_back_stays_open(running: Running) -> None:
    plan = plan_rollback(running.at, Exclusion(CUT, {}))
    assert (plan.namespace.id, plan.parent, plan.decisions, plan.feedback) == ("r-2", "r-1", 1, 2)
    assert plan.rows == 4  # a and c, each with its edge
    assert running.at.online.deployment.active() == Active("r", "r-1"), "a plan changes nothing"
    perform(running.at, plan)
    assert running.at.online.deployment.active() == Active("r", "r-2")

    # What was left out is known: its feedback is no dead letter, and teaches nothing. What comes now does.
    later = decision("ada", AFTER + 10, ["d"])
    told = [feedback(FEVERISH, "a", "like", event="2", received=AFTER + 20), feedback(OPEN, "c", received=AFTER + 20)]
    end = running.append(*told, later, feedback(later, "d", received=AFTER + 30))
    wait_until(lambda: running.folded("r-2", end) and running.folded("r-1", end))
    rows = running.rows("r-2")
    assert rows.get("a").tolist() == [11, 11, 5, 5, 5.5]
    assert rows.get("c").tolist() == [1, 0, 0, 0, 0]
    assert rows.get("b").tolist() == [2, 1, 1, 1, 0.5]
    assert rows.get("d").tolist() == [1, 1, 1, 1, 0.5]
    reader = Reader(running.broker, running.kafka.topics.deadletter, {0: 0})
    assert list(reader.backlog()) == []
    reader.close()

    assert running.rows("r-1").get("a").tolist() == [12, 12, 6, 6, 6]
    assert running.law_holds("r-2")
    assert running.law_holds("r-1")
    activate(running.at, "r-1")
    assert running.at.online.deployment.active() == Active("r", "r-1")
    assert set(running.at.online.deployment.namespaces()) == {"r-1", "r-2"}


def test_what_some_users_did_is_left_out(running: Running) -> None:
    plan = plan_rollback(running.at, Exclusion(None, _excluded("bot")))
    assert (plan.decisions, plan.feedback, plan.rows) == (1, 1, 2)
    perform(running.at, plan)
    end = running.append(feedback(BOT, "b", "view", event="9"))
    wait_until(lambda: running.folded("r-2", end))
    assert running.rows("r-2").get("b").tolist() == [1, 0, 0, 0, 0]
    assert running.rows("r-2").get("a").tolist() == [12, 12, 6, 6, 6]
    assert running.law_holds("r-2")


@pytest.mark.parametrize("running", [1_000_000 / 86_400_000], indirect=True)  # a memory of 1000 s
def test_trials_count_after_a_rollback_for_as_much_as_before(running: Running) -> None:
    plan = plan_rollback(running.at, Exclusion(None, _excluded("bot")))
    assert plan.rows == 2
    now = AFTER + 1_000
    assert plan.namespace.decay == Decay(1_000_000 / 86_400_000, now)
    perform(running.at, plan)
    end = running.append(feedback(EARLY, "b", event="5", received=AFTER + 2))
    wait_until(lambda: running.folded("r-2", end))
    early, late = math.exp(-(now - BEFORE) / 1_000_000), math.exp(-(now - AFTER) / 1_000_000)
    based = 10 * math.exp(-now / 1_000_000)
    assert running.rows("r-2").get("a")[[SERVED, N]] == pytest.approx([based + early + late] * 2)
    assert running.rows("r-2").get("b") == pytest.approx(early * np.array([1, 1, 1, 1, 21 / 22])), "its decision's time"
    assert running.law_holds("r-2")
    assert running.law_holds("r-1")


def test_what_makes_no_sense_is_refused_with_the_remedy(running: Running) -> None:
    def plan(after: int | None, users: dict[str, str]) -> None:
        plan_rollback(running.at, Exclusion(after, users))

    with pytest.raises(InvalidInput, match="is 1000 s in the future"):
        plan(AFTER + 1_001_000, {})
    with pytest.raises(InvalidInput, match=r"up to 1000 ms already.*`matchloop state activate NAME` \(there are r-1\)"):
        plan(999, {})
    with pytest.raises(InvalidInput, match=r"1 of 2 users have no events since.*'nobody'"):
        plan(None, _excluded("nobody", "ada"))
    with pytest.raises(InvalidInput, match="There is nothing to leave out"):
        plan(AFTER + 900, {})
    other = Namespace.load(running.at.home.namespaces, "r-1")
    Namespace(
        id="s-1", release="s", log=other.log, offsets=[0, 0], created=0, graph=Graph(4), base=BASE,
        starts=[Start(), Start()],
    ).save(running.at.home.namespaces)  # fmt: skip
    with pytest.raises(ReleaseRefused, match="s-1 belongs to release s, and release r serves"):
        activate(running.at, "s-1")
    assert running.at.online.deployment.active() == Active("r", "r-1")
