"""GET /readyz: whether this process should get requests."""

import asyncio
import time
from typing import Any

import redis

from feature_store.contracts.errors import Unavailable
from feature_store.online.store import AsyncOnlineStore
from online_serving.event_log import EventLog
from online_serving.state import Current
from streaming.settings import KafkaSettings

_PING_SECONDS = 1.0
_MISSED_TICKS = 3


class Readiness:
    """Looks at everything that an answer needs. The log is not among it: without the log answers are given without
    exploration. But a process that has just started waits a while for its log before it says that it is ready."""

    def __init__(self, current: Current, store: AsyncOnlineStore, log: EventLog, settings: KafkaSettings) -> None:
        self._current = current
        self._store = store
        self._log = log
        self._silence = _MISSED_TICKS * settings.tick_seconds
        self._log_needed_until = time.monotonic() + self._silence
        self.stopping = False  # told by whoever stops the process, before it ends to listen

    async def check(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not; whether it will be when a release is loaded; problems by part, what is degraded, what serves,
        and the log offsets that its parameters hold."""
        problems: dict[str, str] = {"process": "It is stopping."} if self.stopping else {}
        degraded: dict[str, str] = {}
        loading = False
        content: dict[str, Any] = {}
        try:
            state = self._current.state
            content |= {
                "release": state.active.release,
                "namespace": state.active.namespace,
                "offsets": state.parameters.offsets,
                "items": state.snapshot.masks.count,
            }
        except Unavailable as error:
            problems["release"] = str(error)
            loading = self._current.loading
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._store.ping()
        except (redis.RedisError, OSError, TimeoutError) as error:
            problems["redis"] = f"Redis does not answer: {error!r}."
        if silent := self._log.silent(self._silence):
            starting = time.monotonic() < self._log_needed_until
            (problems if starting else degraded)["log"] = (
                f"Partitions {silent} of the log acknowledged nothing in the last {self._silence} s: their users are "
                "answered without exploration."
            )
        answer = {"ready": not problems, "loading": loading, "problems": problems, "degraded": degraded, **content}
        return not problems, answer
