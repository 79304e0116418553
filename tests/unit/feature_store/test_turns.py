import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import redis

from feature_store.turns import Turns


async def settled(*calls: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_so_many_calls_run_at_once_and_all_get_their_turn() -> None:
    async def run() -> tuple[list[BaseException | None], int]:
        turns, running, most = Turns(3, 60.0), 0, 0

        async def call() -> None:
            nonlocal running, most
            async with turns.one():
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        return await settled(*(call() for _ in range(100))), most

    assert asyncio.run(run()) == ([None] * 100, 3)


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.TimeoutError("slow"), OSError("refused")])
def test_who_waited_for_a_call_that_failed_fails_with_it_and_the_next_one_is_tried(error: Exception) -> None:
    async def run() -> None:
        turns, made = Turns(1, 60.0), 0

        async def call(failure: Exception | None) -> None:
            nonlocal made
            async with turns.one():
                made += 1
                await asyncio.sleep(0)
                if failure:
                    raise failure

        first, *others = await settled(call(error), *(call(None) for _ in range(5)))
        assert first is error
        assert all(isinstance(other, redis.ConnectionError) for other in others)
        assert made == 1
        await call(None)
        assert made == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("takes", "made"),
    [
        (0.0, [100.0, 100.15, 100.3, 100.45, 100.6]),  # it refuses at once, and is soon asked again
        (0.25, [100.0, 100.4, 100.8, 101.35, 101.9]),  # from 101.05 to 101.3, from 101.6 to 101.85
        (5.0, [100.0, 105.15, 110.3, 116.35]),  # from 115.3 to 116.3
    ],
)
def test_a_server_that_fails_again_and_again_is_left_alone_for_as_long_as_it_takes_to_fail_up_to_a_second(
    takes: float, made: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    async def run() -> None:
        nonlocal now
        turns, asked = Turns(10, 60.0), list[float]()

        async def call(well: bool) -> None:
            nonlocal now
            async with turns.one():
                asked.append(now)
                if not well:
                    now += takes
                    raise redis.TimeoutError("slow")

        while len(asked) < len(made):
            with pytest.raises(redis.RedisError):
                await call(well=False)
            now += 0.15
        assert asked == pytest.approx(made)
        now += 1.0
        for _ in range(5):
            await call(well=True)

    asyncio.run(run())


def test_while_a_server_that_fails_is_asked_whether_it_is_back_nobody_else_asks() -> None:
    async def run() -> None:
        turns, going = Turns(10, 60.0), asyncio.Event()

        async def call(until: asyncio.Event | None) -> None:
            async with turns.one():
                if until is None:
                    raise redis.ConnectionError("refused")
                await until.wait()

        for _ in range(3):
            with pytest.raises(redis.ConnectionError, match="refused"):
                await call(None)
        await asyncio.sleep(0.06)
        first = asyncio.create_task(call(going))
        await asyncio.sleep(0)
        with pytest.raises(redis.ConnectionError, match="asked again within a second"):
            await call(None)
        going.set()
        await first
        await call(going)

    asyncio.run(run())


def test_what_the_server_refuses_is_no_reason_to_give_up_other_calls() -> None:
    async def run() -> list[BaseException | None]:
        turns = Turns(1, 60.0)

        async def call(failure: Exception | None) -> None:
            async with turns.one():
                if failure:
                    raise failure

        return await settled(call(redis.ResponseError("no")), call(None))

    assert asyncio.run(run())[1] is None


def test_a_call_without_an_answer_ends() -> None:
    async def run() -> None:
        async with Turns(1, 0.01).one():
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_an_answer_that_came_while_the_event_loop_was_busy_is_in_time() -> None:
    async def run() -> str:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()

        def busy() -> None:
            answer = threading.Thread(target=loop.call_soon_threadsafe, args=(answered.set,))
            time.sleep(1.0)
            answer.start()
            answer.join()

        loop.call_soon(busy)
        async with Turns(1, 0.5).one():
            await answered.wait()
            return "answered"

    assert asyncio.run(run()) == "answered"


def test_one_slow_call_is_no_reason_to_give_up_those_that_wait_while_others_succeed() -> None:
    async def run() -> list[BaseException | None]:
        turns = Turns(2, 0.5)

        async def call(answers: bool) -> None:
            async with turns.one():
                await (asyncio.sleep(0) if answers else asyncio.Event().wait())

        return await settled(*(call(answers) for answers in (False, True, False, True)))

    outcomes = asyncio.run(run())
    assert [type(outcome) for outcome in outcomes] == [TimeoutError, type(None), TimeoutError, type(None)]
