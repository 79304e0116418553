"""MatchLoop's HTTP API under load: errors are values to be counted, and nothing is sent again, which would hide what is
to be seen. Products use matchloop-client (clients/python), which raises and repeats.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from feature_store.contracts.catalogue import Item

_IDLE_SECONDS = 2.0  # a client gives an idle connection up before the server does (serving.keep_alive_seconds)


class ShownItem(msgspec.Struct):
    """One item of an answer."""

    id: str
    position: int
    source: str = ""
    probability: float | None = None


class Recommendation(msgspec.Struct):
    """An answer to POST /v1/recommendations."""

    decision_id: str
    items: list[ShownItem]
    variant: str | None = None
    logged: bool = True  # False: answered without exploration because the log was slow
    parameter_offsets: list[int] | None = None  # next log offset to be folded, per partition


class FeedbackEvent(msgspec.Struct):
    """One event as POST /v1/feedback takes it."""

    decision_id: str
    item_id: str
    type: str
    value: float
    time: int
    event_id: str


class EventStatus(msgspec.Struct):
    """What became of one event."""

    status: str
    reason: str | None = None
    event_id: str | None = None
    partition: int | None = None
    offset: int | None = None


class FeedbackReceipt(msgspec.Struct):
    """A 202 answer to POST /v1/feedback."""

    events: list[EventStatus]


class Parameters(msgspec.Struct):
    """An answer to GET /v1/parameters."""

    offsets: list[int]
    release: str | None = None
    namespace: str | None = None


class ItemState(msgspec.Struct):
    """An answer to GET /v1/items/{id}, as far as it matters here."""

    servable: bool | None = None


class Failure(NamedTuple):
    """A request that did not bring what was asked for. `kind` is short and countable."""

    kind: str
    detail: str
    status: int | None = None  # None: no answer at all


Answer = TypeVar("Answer")


class Client:
    """Talks to one address. Use it as an async context manager."""

    def __init__(self, url: str, api_key: str | None, timeout_seconds: float, connections: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._connections = connections

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_IDLE_SECONDS)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout, connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def recommend(
        self, user_id: str, slate_size: int, surface: str, only: Sequence[str] | None = None
    ) -> Recommendation | Failure:
        """Asks for a slate; of these items, if they are named."""
        body: dict[str, Any] = {"user_id": user_id, "slate_size": slate_size, "surface": surface}
        if only is not None:
            body["only"] = list(only)
        return await self._read("POST", "/v1/recommendations", body, Recommendation)

    async def send_feedback(self, events: Sequence[FeedbackEvent]) -> FeedbackReceipt | Failure:
        """Reports what a user did."""
        return await self._read("POST", "/v1/feedback", {"events": events}, FeedbackReceipt)

    async def put_item(self, item: Item) -> Failure | None:
        """Adds an item to the live catalogue, or describes it anew."""
        body = {name: value for name, value in msgspec.structs.asdict(item).items() if name != "id"}
        answer = await self._send("PUT", _item_path(item.id), body)
        return answer if isinstance(answer, Failure) else None

    async def put_items(self, items: Sequence[Item]) -> Failure | None:
        """Adds items to the live catalogue, or describes them anew, in one request."""
        answer = await self._send("POST", "/v1/items:batch", {"items": items})
        return answer if isinstance(answer, Failure) else None

    async def delete_item(self, item_id: str) -> Failure | None:
        """Takes an item out of the catalogue."""
        answer = await self._send("DELETE", _item_path(item_id), None)
        return answer if isinstance(answer, Failure) else None

    async def item(self, item_id: str) -> ItemState | Failure:
        """Looks an item up."""
        return await self._read("GET", _item_path(item_id), None, ItemState)

    async def parameters(self) -> Parameters | Failure:
        """How far the parameters in use have learnt."""
        return await self._read("GET", "/v1/parameters", None, Parameters)

    async def _read(self, method: str, path: str, body: Any, answer: type[Answer]) -> Answer | Failure:
        content = await self._send(method, path, body)
        if isinstance(content, Failure):
            return content
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.MsgspecError as error:
            return Failure(f"{_name(method, path)}: unreadable answer", f"{error}: {content[:200]!r}")

    async def _send(self, method: str, path: str, body: Any) -> bytes | Failure:
        name = _name(method, path)
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, self._url + path, data=data) as response:
                content = await response.read()
        except TimeoutError:
            return Failure(f"{name}: no answer in time", f"{self._timeout.total} s passed")
        except aiohttp.ClientError as error:
            return Failure(f"{name}: {type(error).__name__}", str(error))
        if not 200 <= response.status < 300:
            return Failure(f"{name}: {response.status}", content[:300].decode(errors="replace"), response.status)
        return content


def _name(method: str, path: str) -> str:
    return f"{method} {'/v1/items' if path.startswith('/v1/items/') else path}"


def _item_path(item_id: str) -> str:
    return f"/v1/items/{quote(item_id, safe='')}"
