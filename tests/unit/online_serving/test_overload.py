"""More is asked than can be answered: who waits, who is refused, and what goes on meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from online_serving.overload import Admission, Door, WorkQueue


async def _pause() -> None:
    await asyncio.sleep(0)


async def _taking(queue: WorkQueue, work: Callable[[], None] = lambda: None) -> bool:
    async with queue.turn() as at_once:
        work()
        return at_once


def test_turns_are_taken_in_the_order_in_which_they_were_asked_for() -> None:
    async def scenario() -> list[int]:
        queue, order = WorkQueue(), list[int]()
        found = await asyncio.gather(*(_taking(queue, lambda n=n: order.append(n)) for n in range(9)))  # type: ignore[misc]
        assert found == [True, *[False] * 8]
        return order

    assert asyncio.run(scenario()) == list(range(9))


def test_between_two_turns_the_loop_does_what_else_is_due() -> None:
    async def scenario() -> list[str]:
        queue, trace = WorkQueue(), list[str]()

        async def other() -> None:
            while len(trace) < 7:
                trace.append("other")
                await _pause()

        others = asyncio.ensure_future(other())
        await asyncio.gather(*(_taking(queue, lambda: trace.append("turn")) for _ in range(3)))
        await others
        return trace

    trace = asyncio.run(scenario())
    assert "turn turn" not in " ".join(trace)
    assert trace.count("turn") == 3


def test_a_turn_that_fails_or_is_given_up_leaves_the_others_theirs() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def scenario() -> bool:
        queue = WorkQueue()
        failing = asyncio.ensure_future(_taking(queue, fail))
        given_up = asyncio.ensure_future(_taking(queue))
        third = asyncio.ensure_future(_taking(queue))
        await _pause()
        given_up.cancel()
        await asyncio.gather(failing, given_up, return_exceptions=True)
        assert isinstance(failing.exception(), ZeroDivisionError)
        return await third

    assert asyncio.run(scenario()) is False


def used_to(seconds: float) -> WorkQueue:
    """A queue whose requests have taken so long for a while when they did not wait."""
    queue = WorkQueue()
    for _ in range(300):
        queue.usual(seconds)
    return queue


async def waiting_in(queue: WorkQueue, count: int) -> "list[asyncio.Future[bool]]":
    """So many wait, behind one who has a turn."""
    tasks: list[asyncio.Future[bool]] = [asyncio.ensure_future(_taking(queue)) for _ in range(count + 1)]
    await _pause()
    return tasks


@pytest.mark.parametrize(
    ("usual", "waiting", "taken"),
    [(0.0, 11, True), (0.0, 12, False), (10.0, 100, True)],
    ids=["a swarm", "short", "long"],
)
def test_nobody_comes_in_behind_more_than_is_usual(usual: float, waiting: int, taken: bool) -> None:
    async def scenario() -> bool:
        queue = used_to(usual)
        tasks = await waiting_in(queue, waiting)
        refused = queue.refuses()
        await asyncio.gather(*tasks)
        assert not queue.refuses(), "nobody waits any more"
        return not refused

    assert asyncio.run(scenario()) is taken


def test_what_requests_take_in_an_overload_is_not_usual() -> None:
    async def scenario() -> None:
        queue = used_to(0.0)
        tasks = await waiting_in(queue, 12)
        assert queue.refuses()
        assert not queue.calm
        for _ in range(300):
            queue.usual(10.0)
        assert queue.refuses()
        await asyncio.gather(*tasks)

    _played(scenario)


def test_those_who_came_in_count_before_they_have_reached_the_queue() -> None:
    """A turn is believed to take 10 ms before the first one; one and a half times 10 s are 1,500 of them."""
    queue = used_to(10.0)
    with contextlib.ExitStack() as inside:
        taken = 0
        while not queue.refuses():
            inside.enter_context(queue.inside())
            taken += 1
        assert taken == pytest.approx(1_500, abs=2)
    assert not queue.refuses(), "all have gone"


def test_those_who_wait_for_something_else_do_not_count() -> None:
    async def scenario() -> None:
        queue = used_to(0.0)
        with contextlib.ExitStack() as inside:
            for _ in range(12):
                inside.enter_context(queue.inside())
            while queue.refuses():  # they have not come to the queue, in no time
                await _pause()

    _played(scenario)


def test_whoever_has_come_to_the_queue_is_on_the_way_no_longer() -> None:
    async def scenario() -> None:
        queue = used_to(10.0)

        async def request() -> None:
            assert not queue.refuses()
            with queue.inside():
                await _taking(queue)
                assert queue._coming == 0

        for _ in range(3):
            await asyncio.ensure_future(request())
        assert queue._coming == 0

    _played(scenario)


class Site:
    """An application behind Admission whose requests end when they are told to."""

    def __init__(self, queue: WorkQueue, limit: int) -> None:
        self.end = asyncio.Event()
        self.taken: list[str] = []
        self.admission = Admission(self._answer, Door(queue, limit))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.taken.append(scope["path"])
        await self.end.wait()
        await Response("answer")(scope, receive, send)

    async def ask(self, path: str) -> tuple[int, bytes | None, bytes]:
        """Status, Retry-After and body of the answer."""
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("a request that is refused is not read")

        async def send(message: Message) -> None:
            sent.append(message)

        await self.admission({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after"), sent[1]["body"]


def _played(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_recommendations_leave_room_for_feedback_and_nothing_stands_in_the_way_of_probes() -> None:
    async def scenario() -> None:
        site = Site(WorkQueue(), 8)
        paths = ["/v1/recommendations"] * 8 + ["/v1/feedback"] * 4 + ["/healthz", "/metrics", "/readyz"]
        asked = [asyncio.ensure_future(site.ask(path)) for path in paths]
        while len(site.taken) < 6 + 2 + 3:  # three quarters of 8, the rest, and what is not counted
            await _pause()
        site.end.set()
        answers = await asyncio.gather(*asked)
        assert [status for status, _, _ in answers] == [200] * 6 + [503] * 2 + [200] * 2 + [503] * 2 + [200] * 3
        assert {after for status, after, _ in answers if status == 503} == {b"1"}
        assert {orjson.loads(body)["error"] for status, _, body in answers if status == 503} == {"overloaded"}
        assert (await site.ask("/v1/recommendations"))[0] == 200, "all has been answered"

    _played(scenario)


def test_while_too_many_wait_for_their_turn_recommendations_are_refused_and_feedback_is_not() -> None:
    async def scenario() -> None:
        queue = used_to(0.0)
        site = Site(queue, 100)
        site.end.set()
        waiting = await waiting_in(queue, 12)
        assert (await site.ask("/v1/recommendations"))[:2] == (503, b"1")
        assert (await site.ask("/v1/feedback"))[0] == 200
        await asyncio.gather(*waiting)
        assert (await site.ask("/v1/recommendations"))[0] == 200

    _played(scenario)
