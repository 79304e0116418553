"""Decisions and feedback against logs that are slow, broken or well: small implementations of DecisionLog."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import Unacknowledged, Unavailable
from feature_store.contracts.events import Decision, Event, Feedback, Withdrawal
from feature_store.contracts.identity import DecisionRef, Keyring
from feature_store.online.deployment import Active
from feature_store.online.store import AsyncOnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import build_release, items
from infra.servers import free_port
from online_serving.decisions import DecisionAppender
from online_serving.errors import Overloaded
from online_serving.experiments import Treated
from online_serving.feedback import FeedbackIntake
from online_serving.last_seen import LastSeen
from online_serving.overload import WorkQueue
from online_serving.parameters import Parameters
from online_serving.recommendations import Recommender, UserLocks
from online_serving.schemas import FeedbackRequest, RecommendationRequest
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from online_serving.state import Current, ServingState
from online_serving.treatments import Treatments
from streaming.kafka import Appended
from streaming.settings import BanditSettings, RewardSettings
from tests.events import KEYRING, decision

CATALOGUE = items(40)


class ListLog:
    """Takes records into a list; answers at once, with an error, or never."""

    def __init__(self, error: Exception | None = None, silent: bool = False, stalled: float = 0.0) -> None:
        self.events: list[Event] = []
        self.records = 0
        self._error, self._silent, self._stalled = error, silent, stalled

    def stalled_seconds(self, user: str) -> float:
        del user
        return self._stalled

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
    parameters = Parameters(snapshot.graph, [], [3, 4])
    current = Current()
    current.publish(ServingState(Active(release, "n"), snapshot, parameters, []))
    return current


def ask(current: Current, log: ListLog, **settings: Any) -> dict[str, Any]:
    """One answer with nobody listening at Redis's address."""

    async def asking() -> dict[str, Any]:
        client = redis.asyncio.Redis(port=free_port())
        serving = ServingSettings(slate_size=6, candidate_log_share=1.0, **settings)
        appender = DecisionAppender(log, serving.decision_deadline_ms)
        treated = Treated(current)
        treated.publish(Treatments([], serving, BanditSettings(), nullcontext), {})
        recommender = Recommender(
            treated,
            Keyring(b"a secret for the tests"),
            AsyncOnlineStore(client, RedisSettings()),
            appender,
            WorkQueue(),
            serving,
            ManualClock(1_000),
            np.random.default_rng(1),
            LastSeen(),
        )
        try:
            return await recommender.answer(RecommendationRequest(user_id="u"))
        finally:
            await appender.close()
            await client.aclose()

    return asyncio.run(asking())


def test_a_decision_in_the_log_is_what_was_answered(current: Current) -> None:
    log = ListLog()
    answer = ask(current, log)
    (decision,) = log.events
    assert isinstance(decision, Decision)
    assert answer["logged"] is True
    assert decision.id == answer["decision_id"]
    assert KEYRING.open_decision_id(decision.id) == DecisionRef(decision.user, 1_000)
    assert decision.items[:6] == [item["id"] for item in answer["items"]]
    assert decision.offsets == [3, 4]
    assert decision.candidates is not None
    assert set(decision.items) <= set(decision.candidates)
    assert answer["degraded"] == ["user_features", "shown_items"]  # no Redis here
    assert answer["path"] == decision.path == "popular_in_segment"


@pytest.mark.parametrize("log", [ListLog(silent=True), ListLog(error=Unavailable("gone"))], ids=["silent", "broken"])
def test_what_the_log_does_not_take_in_time_is_not_explored(current: Current, log: ListLog) -> None:
    answer = ask(current, log, decision_deadline_ms=10.0)
    (attempted,) = log.events
    assert isinstance(attempted, Decision)
    assert answer["logged"] is False
    assert "log" in answer["degraded"]
    assert KEYRING.open_decision_id(answer["decision_id"]) == DecisionRef(attempted.user, 1_000, logged=False)
    assert [item["probability"] for item in answer["items"]] == [1.0] * 6
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("stalled", "sent"), [(0.3, 1), (0.31, 0)])
def test_a_partition_that_is_several_deadlines_late_is_not_sent_to(current: Current, stalled: float, sent: int) -> None:
    log = ListLog(stalled=stalled)
    assert ask(current, log, decision_deadline_ms=100.0)["logged"] is bool(sent)
    assert log.records == sent


class FailingLog(ListLog):
    """Fails the first records with these errors, and takes those after them."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        self._error = self._errors.pop(0) if self._errors else None
        return super().append(user, events)


def withdrawn(log: ListLog, records: int) -> list[Event]:
    """What is appended behind a decision that the log does not acknowledge, when there are so many records."""

    async def scenario() -> list[Event]:
        appender = DecisionAppender(log, 10.0)
        assert await appender.logged(decision("u", 7, ["a"])) is False
        while log.records < records:
            await asyncio.sleep(0)
        await appender.close()
        return log.events[1:]

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_decision_of_which_nobody_knows_whether_the_log_has_it_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decision("u", 7, ["a"])
    withdrawal = Withdrawal(decision=made.id, user=made.user, time=7)
    assert withdrawn(FailingLog(Unacknowledged("?")), 2) == [withdrawal]
    monkeypatch.setattr("online_serving.decisions._RETRY_SECONDS", 0.01)
    again = FailingLog(Unacknowledged("?"), Unacknowledged("?"), Unavailable("gone"))
    assert withdrawn(again, 4) == [withdrawal] * 3  # until the log takes it


def test_a_decision_that_was_not_sent_is_not_withdrawn() -> None:
    assert withdrawn(FailingLog(Unavailable("not sent")), 1) == []


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

    assert asyncio.run(DecisionAppender(LoopHog(), 10.0).logged(decision("u", 0, ["a"]))) is True


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


def test_one_user_may_not_ask_for_everything_at_once() -> None:
    async def scenario() -> None:
        locks, leave = UserLocks(), asyncio.Event()

        async def hold(user: str) -> None:
            async with locks.holding(user):
                await leave.wait()

        asked = [asyncio.ensure_future(hold("u")) for _ in range(33)]
        other = asyncio.ensure_future(hold("v"))
        await asyncio.wait([asked[-1]])
        assert isinstance(asked[-1].exception(), Overloaded)
        leave.set()
        await asyncio.gather(*asked[:-1], other)
        assert len(locks) == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))
