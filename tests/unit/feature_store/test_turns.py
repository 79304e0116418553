import asyncio
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
