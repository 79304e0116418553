"""Many calls to one server from an event loop: so many at once, and no failure for those that wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import redis


class Turns:
    """Lets so many calls run at once; the others wait. Waiting for a turn has no limit: whoever takes requests bounds
    their number."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._seconds = seconds
        self._failed = float("-inf")  # monotonic time

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One call. Raises TimeoutError after the time limit; and redis.ConnectionError at once if another call failed
        while this one waited, so that a server that hangs holds nobody up for longer than it would hold one."""
        asked = time.monotonic()
        async with self._free:
            if self._failed > asked:
                raise redis.ConnectionError("it did not answer the calls before this one")
            try:
                async with asyncio.timeout(self._seconds):
                    yield
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._failed = time.monotonic()
                raise
