"""GET /readyz: whether this process should get requests."""

import asyncio
from typing import Any

import redis

from feature_store.contracts.errors import Unavailable
from feature_store.online import AsyncOnlineStore
from online_serving.event_log import EventLog
from online_serving.state import Current
from streaming.settings import KafkaSettings

_PING_SECONDS = 1.0
_MISSED_TICKS = 3


class Readiness:
    """Looks at everything that a good answer needs."""

    def __init__(self, current: Current, store: AsyncOnlineStore, log: EventLog, settings: KafkaSettings) -> None:
        self._current = current
        self._store = store
        self._log = log
        self._silence = _MISSED_TICKS * settings.tick_seconds

    async def check(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not; problems by part, what serves, and the log offsets that its parameters hold."""
        problems: dict[str, str] = {}
        content: dict[str, Any] = {}
        try:
            state = self._current.state
            content |= {
                "release": state.active.release,
                "namespace": state.active.namespace,
                "offsets": state.parameters.offsets,
                "items": int(state.snapshot.available.sum()),
            }
        except Unavailable as error:
            problems["release"] = str(error)
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._store.ping()
        except (redis.RedisError, OSError, TimeoutError) as error:
            problems["redis"] = f"Redis does not answer: {error!r}."
        if self._log.silent_seconds > self._silence:
            problems["log"] = f"The log acknowledged nothing in the last {self._silence} s."
        return not problems, {"ready": not problems, "problems": problems, **content}
