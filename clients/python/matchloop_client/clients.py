"""The clients: the same operations, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable

import httpx

from matchloop_client import operations
from matchloop_client.answers import Answer
from matchloop_client.batches import AsyncEventBatch, EventBatch
from matchloop_client.calls import Attempts, Call, Outcome, answer

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self

    Arguments = ParamSpec("Arguments")

KEY = "MATCHLOOP_API_KEY"
# An idle connection is given up before the server does (serving.keep_alive_seconds).
_LIMITS = httpx.Limits(keepalive_expiry=2.0)


def _blocking(operation: Callable[Arguments, Call[Answer]]) -> Callable[Arguments, Answer]:
    @functools.wraps(operation)
    def method(*arguments: Any, **named: Any) -> Answer:
        client: Client = arguments[0]
        return client.send(operation(*arguments, **named))

    return method


def _awaited(operation: Callable[Arguments, Call[Answer]]) -> Callable[Arguments, Awaitable[Answer]]:
    @functools.wraps(operation)
    async def method(*arguments: Any, **named: Any) -> Answer:
        client: AsyncClient = arguments[0]
        return await client.send(operation(*arguments, **named))

    return method


class Client:
    """Talks to the API at one address. Threads may share it. A context manager: close it when it is done with.

    Every operation raises NoAnswer or ApiError. What the API was too busy for (503), or what came too often (429), is
    sent again, and so is what got no answer, where doing it twice is doing it once or it cannot have arrived.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 5.0,
        retry_seconds: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """url: `https://recommend.example`. api_key: by default that of the environment variable MATCHLOOP_API_KEY.
        timeout: seconds, for connecting, and for each part of an answer. retry_seconds: after these no attempt begins;
        0: there is one. transport: of httpx, where its own will not do.

        Raises ValueError for an address or a key that cannot be.
        """
        self._http = httpx.Client(
            base_url=_address(url), headers=_headers(api_key), timeout=timeout, limits=_LIMITS, transport=transport
        )
        self._retry_seconds = retry_seconds

    def send(self, call: Call[Answer]) -> Answer:
        """Makes a call, with its repetitions."""
        attempts = Attempts(call.repeatable, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return answer(call, outcome)
            time.sleep(pause)

    recommend = _blocking(operations.recommend)
    recommend_many = _blocking(operations.recommend_many)
    send_feedback = _blocking(operations.send_feedback)
    send_events = _blocking(operations.send_events)
    list_popular = _blocking(operations.list_popular)
    list_similar = _blocking(operations.list_similar)
    list_items = _blocking(operations.list_items)
    get_item = _blocking(operations.get_item)
    put_item = _blocking(operations.put_item)
    put_items = _blocking(operations.put_items)
    delete_item = _blocking(operations.delete_item)
    list_decisions = _blocking(operations.list_decisions)
    list_users = _blocking(operations.list_users)
    get_user = _blocking(operations.get_user)
    put_user = _blocking(operations.put_user)
    merge_user = _blocking(operations.merge_user)
    erase_user = _blocking(operations.erase_user)

    def batch(self, size: int = 100) -> EventBatch:
        """Collects events and sends them together. size: at which they are sent, 1 to 1,000."""
        return EventBatch(self.send_feedback, self.send_events, size)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.base_url!r})"


class AsyncClient:
    """As Client, for asyncio: `async with`, and `await` before every operation."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 5.0,
        retry_seconds: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As Client's."""
        self._http = httpx.AsyncClient(
            base_url=_address(url), headers=_headers(api_key), timeout=timeout, limits=_LIMITS, transport=transport
        )
        self._retry_seconds = retry_seconds

    async def send(self, call: Call[Answer]) -> Answer:
        """Makes a call, with its repetitions."""
        attempts = Attempts(call.repeatable, self._retry_seconds)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return answer(call, outcome)
            await asyncio.sleep(pause)

    recommend = _awaited(operations.recommend)
    recommend_many = _awaited(operations.recommend_many)
    send_feedback = _awaited(operations.send_feedback)
    send_events = _awaited(operations.send_events)
    list_popular = _awaited(operations.list_popular)
    list_similar = _awaited(operations.list_similar)
    list_items = _awaited(operations.list_items)
    get_item = _awaited(operations.get_item)
    put_item = _awaited(operations.put_item)
    put_items = _awaited(operations.put_items)
    delete_item = _awaited(operations.delete_item)
    list_decisions = _awaited(operations.list_decisions)
    list_users = _awaited(operations.list_users)
    get_user = _awaited(operations.get_user)
    put_user = _awaited(operations.put_user)
    merge_user = _awaited(operations.merge_user)
    erase_user = _awaited(operations.erase_user)

    def batch(self, size: int = 100) -> AsyncEventBatch:
        """As Client.batch."""
        return AsyncEventBatch(self.send_feedback, self.send_events, size)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.base_url!r})"


def _address(url: str) -> httpx.URL:
    address = httpx.URL(url)
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(f"the address of the API is {address!r}: it begins with http:// or https://, and names a host")
    return address


def _headers(api_key: str | None) -> dict[str, str]:
    key = (os.environ.get(KEY, "") if api_key is None else api_key).strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the API key (argument api_key, or {KEY}) has characters that no header can carry")
    return {"Authorization": f"Bearer {key}"} if key else {}
