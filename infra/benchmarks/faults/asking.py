"""Clients of an API that is disturbed: they note what each request was answered, and what was promised."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec
import numpy as np

from infra.benchmarks.visitors import Promises

_USERS = 300
_SLATE_SIZE = 5
_FEEDBACK_SHARE = 0.5
_PATIENCE_SECONDS = 20.0
_IDLE_SECONDS = 2.0  # a client gives an idle connection up before the server does
_TRIES, _PAUSE_SECONDS = 3, 0.1
_COME_AGAIN = 503
_WELL = 20  # answers as they should be, one after the other, each of a process that the system chose anew


class Asked(NamedTuple):
    """A request for a recommendation."""

    user: str
    status: int  # 0: no answer
    path: str  # empty without a slate
    logged: bool
    seconds: float

    @property
    def well(self) -> bool:
        """As when nothing is wrong."""
        return self.status == 200 and self.path == "full" and self.logged


class Asking:
    """Asks one address. An async context manager. A connection that ends is no answer, and a 503 asks to come again: it
    does, as clients and proxies do, and `promises.repeated` counts how often."""

    def __init__(self, url: str, seed: int) -> None:
        self.promises = Promises()
        self.feedback: Counter[int] = Counter()  # by status
        self._url = url
        self._rng = np.random.default_rng(seed)
        self._number = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=_PATIENCE_SECONDS),
        )
        self._strangers = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(total=_PATIENCE_SECONDS),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._strangers.close()

    async def until(self, stop: asyncio.Event, rate: float) -> list[Asked]:
        """Asks so many times a second until it is told to stop; waits for all answers."""
        loop = asyncio.get_running_loop()
        due, asked = loop.time(), []
        while not stop.is_set():
            asked.append(loop.create_task(self.visit(self._session)))
            due += 1 / rate
            await asyncio.sleep(due - loop.time())
        return await asyncio.gather(*asked)

    async def until_well(self, patience: float) -> float:
        """Seconds until many requests in a row are answered as they should be, by every process: each comes on a
        connection of its own. NaN if they are not in time."""
        loop = asyncio.get_running_loop()
        began, first, count = loop.time(), 0.0, 0
        while loop.time() < began + patience:
            asked = loop.time()
            if (await self.visit(self._strangers)).well:
                first, count = first if count else asked, count + 1
                if count == _WELL:
                    return first - began
            else:
                count = 0
                await asyncio.sleep(0.02)
        return float("nan")

    async def visit(self, session: aiohttp.ClientSession) -> Asked:
        """A recommendation, and now and then feedback on its first item."""
        self._number += 1
        number, clicks = self._number, self._rng.random() < _FEEDBACK_SHARE
        loop = asyncio.get_running_loop()
        began = loop.time()
        user = f"visitor-{self._rng.integers(_USERS)}"
        body = {"user_id": user, "slate_size": _SLATE_SIZE}
        status, content = await self._post(session, "/v1/recommendations", body)
        took = loop.time() - began
        if status != 200:
            return Asked(user, status, "", False, took)
        if content["logged"]:
            self.promises.decisions[content["decision_id"]] = [item["id"] for item in content["items"]]
        if clicks and content["items"]:
            await self._click(session, content["decision_id"], content["items"][0]["id"], f"click-{number}")
        return Asked(user, 200, content["path"], content["logged"], took)

    async def _click(self, session: aiohttp.ClientSession, decision: str, item: str, event: str) -> None:
        told = {"decision_id": decision, "item_id": item, "type": "click", "event_id": event}
        status, _ = await self._post(session, "/v1/feedback", {"events": [told]})
        self.feedback[status] += 1
        if status == 202:
            self.promises.events.add((decision, event))

    async def _post(self, session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        data = msgspec.json.encode(body)
        status = 0
        for _ in range(_TRIES):
            try:
                async with session.post(
                    self._url + path, data=data, headers={"Content-Type": "application/json"}
                ) as response:
                    status, content = response.status, await response.read()
                    if status != _COME_AGAIN:
                        return status, msgspec.json.decode(content)
                    pause = float(response.headers.get("Retry-After", _PAUSE_SECONDS))
            except TimeoutError:
                return 0, None
            except (aiohttp.ClientError, msgspec.DecodeError):
                status, pause = 0, _PAUSE_SECONDS
            self.promises.repeated += 1
            await asyncio.sleep(pause)
        return status, None


def quantile_ms(asked: Sequence[Asked], share: float) -> float:
    """Of the times of those with a slate; 0 if there are none."""
    took = [one.seconds for one in asked if one.status == 200]
    return float(np.quantile(took, share)) * 1000 if took else 0.0
