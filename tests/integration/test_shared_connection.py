"""Many calls on one connection, with a real server: who asked gets the answer, whatever becomes of the others."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio

from feature_store.shared_connection import Command, SharedConnection
from tests.integration.conftest import Server

T = TypeVar("T")


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@contextlib.contextmanager
def hanging(server: Server) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def with_connection(url: str, use: Callable[[SharedConnection], Awaitable[T]], seconds: float = 60.0) -> T:
    async def run() -> T:
        async with redis.asyncio.Redis.from_url(url, client_name="shared") as client:
            return await use(SharedConnection(client.connection_pool, seconds))

    return asyncio.run(run())


def shared_clients(server: redis.Redis) -> list[str]:
    """The ids of the server's connections of that name."""
    return [client["id"] for client in server.client_list() if client["name"] == "shared"]


def test_answers_go_to_those_who_asked_over_one_connection(redis_url: str, server: redis.Redis) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        calls: list[list[Command]] = [[("ECHO", f"{n}.{k}") for k in range(n % 3 + 1)] for n in range(300)]
        answers = await asyncio.gather(*map(shared.call, calls))
        return [answers, len(shared_clients(server))]

    wanted = [[f"{n}.{k}".encode() for k in range(n % 3 + 1)] for n in range(300)]
    assert with_connection(redis_url, use) == [wanted, 1]


def test_a_refused_command_fails_its_own_call_alone(redis_url: str) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        calls: list[list[Command]] = [[("ECHO", "a")], [("ECHO", "b"), ("NOTHING",), ("ECHO", "c")], [("ECHO", "d")]]
        return list(await asyncio.gather(*map(shared.call, calls), return_exceptions=True))

    first, refused, last = with_connection(redis_url, use)
    assert (first, last) == ([b"a"], [b"d"])
    assert isinstance(refused, redis.ResponseError)
    assert "NOTHING" in str(refused)


def test_who_gives_up_leaves_the_others_their_answers(redis_server: Server) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        await shared.call([("PING",)])
        with hanging(redis_server):  # or all would be answered before anybody gives up
            calls = [asyncio.ensure_future(shared.call([("ECHO", str(n))])) for n in range(3)]
            await asyncio.sleep(0)
            calls[1].cancel()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    first, gone, last = with_connection(redis_server.address, use)
    assert (first, last) == ([b"0"], [b"2"])
    assert isinstance(gone, asyncio.CancelledError)


def test_a_lost_connection_is_opened_anew(redis_url: str, server: redis.Redis) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        found = []
        for n in range(3):
            found += await shared.call([("ECHO", str(n))])
            for client in shared_clients(server):
                server.client_kill_filter(_id=client)
        return found

    assert with_connection(redis_url, use) == [b"0", b"1", b"2"]


def test_calls_to_a_server_that_hangs_fail_after_the_time_and_the_next_one_is_made(redis_server: Server) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        await shared.call([("PING",)])
        with hanging(redis_server):
            failed = await asyncio.gather(*(shared.call([("PING",)]) for _ in range(2)), return_exceptions=True)
        return [*failed, await shared.call([("ECHO", "back")])]

    *failed, answered = with_connection(redis_server.address, use, seconds=3.0)
    assert [type(one) for one in failed] == [redis.TimeoutError] * 2
    assert answered == [b"back"]


def test_nobody_listens() -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        return list(await asyncio.gather(*(shared.call([("PING",)]) for _ in range(5)), return_exceptions=True))

    failed = with_connection("redis://127.0.0.1:1", use)
    assert [type(one) for one in failed] == [redis.ConnectionError] * 5


def test_user_password_and_database_are_those_of_the_address(redis_url: str, server: redis.Redis) -> None:
    async def use(shared: SharedConnection) -> list[Any]:
        return await shared.call([("ACL", "WHOAMI"), ("CLIENT", "INFO")])

    server.acl_setuser("ada", enabled=True, passwords=["+lovelace"], categories=["+@all"], keys=["*"])
    try:
        who, info = with_connection(f"redis://ada:lovelace@{urlsplit(redis_url).netloc}/3", use)
    finally:
        server.acl_deluser("ada")
    assert who == b"ada"
    assert b" db=3 " in info
