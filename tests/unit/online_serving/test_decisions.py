"""Decisions and feedback against logs that are slow, broken or well: small implementations of DecisionLog."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Decision, Event, Feedback
from feature_store.contracts.experiments import BanditMode, Experiment, Variant
from feature_store.contracts.identity import Keyring
from feature_store.online import Active, AsyncOnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import build_release, items
from infra.servers import free_port
from online_serving import decisions
from online_serving.feedback import FeedbackIntake
from online_serving.parameters import Parameters
from online_serving.pipeline.pipeline import Pipeline
from online_serving.recommendations import Recommender, UserLocks
from online_serving.schemas import FeedbackRequest, RecommendationRequest
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from online_serving.state import Current, State
from streaming.kafka import Appended
from streaming.settings import BanditSettings, RewardSettings
from tests.events import KEYRING, decision

CATALOGUE = items(40)
EXPERIMENT = Experiment(variants=(Variant(name="online", share=1.0, bandit=BanditMode.EXPLORE),))


class ListLog:
    """Takes records into a list; answers at once, with an error, or never."""

    def __init__(self, error: Exception | None = None, silent: bool = False) -> None:
        self.events: list[Event] = []
        self.records = 0
        self.stalled_seconds = 0.0
        self._error, self._silent = error, silent

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        sent: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self.records += 1
        self.events += events
        if self._error:
            sent.set_exception(self._error)
        elif not self._silent:
            sent.set_result(Appended(0, self.records))
        return sent


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Current:
    home: Path = tmp_path_factory.mktemp("releases")
    release = build_release(home, catalogue=CATALOGUE)
    snapshot = Snapshot.load(home, release, CATALOGUE)
    parameters = Parameters(snapshot.graph, snapshot.size, [], [3, 4], BanditSettings())
    current = Current()
    current.publish(State(Active(release, "n"), snapshot, parameters, []))
    return current


def ask(current: Current, log: ListLog, **settings: Any) -> dict[str, Any]:
    """One answer with nobody listening at Redis's address."""

    async def asking() -> dict[str, Any]:
        client = redis.asyncio.Redis(port=free_port())
        serving = ServingSettings(slate_size=6, candidate_log_share=1.0, **settings)
        recommender = Recommender(
            current,
            Pipeline(serving, BanditSettings()),
            Keyring(b"a secret for the tests"),
            EXPERIMENT,
            AsyncOnlineStore(client, RedisSettings()),
            log,
            serving,
            ManualClock(1_000),
            np.random.default_rng(1),
        )
        try:
            return await recommender.answer(RecommendationRequest(user_id="u"))
        finally:
            await client.aclose()

    return asyncio.run(asking())


def test_a_decision_in_the_log_is_what_was_answered(current: Current) -> None:
    log = ListLog()
    answer = ask(current, log)
    (decision,) = log.events
    assert isinstance(decision, Decision)
    assert answer["logged"] is True
    assert decision.id == answer["decision_id"]
    assert KEYRING.open_decision_id(decision.id) == (decision.user, 1_000)
    assert decision.items[:6] == [item["id"] for item in answer["items"]]
    assert decision.offsets == [3, 4]
    assert decision.candidates is not None
    assert set(decision.items) <= set(decision.candidates)
    assert answer["degraded"] == ["user_features", "shown_items"]  # no Redis here


@pytest.mark.parametrize("log", [ListLog(silent=True), ListLog(error=Unavailable("gone"))], ids=["silent", "broken"])
def test_what_the_log_does_not_take_in_time_is_not_explored(current: Current, log: ListLog) -> None:
    answer = ask(current, log, decision_deadline_ms=10.0)
    (attempted,) = log.events
    assert isinstance(attempted, Decision)
    assert answer["logged"] is False
    assert "log" in answer["degraded"]
    assert answer["decision_id"] != attempted.id
    assert [item["probability"] for item in answer["items"]] == [1.0] * 6
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_a_stalled_log_is_not_sent_to(current: Current) -> None:
    log = ListLog()
    log.stalled_seconds = 0.5
    assert ask(current, log)["logged"] is False
    assert log.events == []


def test_an_acknowledgement_that_waits_in_a_busy_loop_is_in_time() -> None:
    class LoopHog(ListLog):
        def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
            loop = asyncio.get_running_loop()
            sent: asyncio.Future[Appended] = loop.create_future()

            def come_late() -> None:
                deadline = loop.time() + 0.05
                while loop.time() < deadline:
                    pass
                sent.set_result(Appended(0, 0))

            loop.call_soon(come_late)
            return sent

    assert asyncio.run(decisions.logged(LoopHog(), decision("u", 0, ["a"]), 10.0)) is True


def test_feedback_that_is_not_acknowledged_is_said_to_be_so() -> None:
    made = decision("u", 0, ["a", "b"])
    body = FeedbackRequest.model_validate(
        {"events": [{"decision_id": made.id, "item_id": i, "type": "click", "event_id": i} for i in ("a", "b")]}
    )

    async def give(log: ListLog) -> list[dict[str, Any]]:
        serving = ServingSettings(feedback_deadline_ms=10.0)
        return await FeedbackIntake(KEYRING, log, serving, RewardSettings(), ManualClock(5)).take(body)

    for log in (ListLog(silent=True), ListLog(error=Unavailable("gone"))):
        assert [status["status"] for status in asyncio.run(give(log))] == ["unacknowledged"] * 2
    log = ListLog()
    assert [status["offset"] for status in asyncio.run(give(log))] == [1, 1]
    logged = [(e.item, e.received, e.time) for e in log.events if isinstance(e, Feedback)]
    assert logged == [("a", 5, 5), ("b", 5, 5)]


def test_locks_hold_one_user_and_are_forgotten() -> None:
    async def scenario() -> list[str]:
        locks, trace = UserLocks(), []

        async def hold(user: str, name: str) -> None:
            async with locks.holding(user):
                trace.append(f"{name} in")
                await asyncio.sleep(0)
                trace.append(f"{name} out")

        await asyncio.gather(hold("u", "a"), hold("u", "b"), hold("v", "c"))
        assert len(locks) == 0
        return trace

    trace = asyncio.run(scenario())
    assert trace.index("a out") < trace.index("b in")
    assert trace.index("c in") < trace.index("a out")
