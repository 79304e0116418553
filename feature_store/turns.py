"""Many calls to one server from an event loop: so many at once, and no failure for those that wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import redis

SLICES = 4
_FAILURES = 3  # in a row; then the server is left alone, but for a call now and then that finds out whether it is back
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 1.0  # for which it is left alone


class Breaker:
    """Knows whether a server fails. Such a server is left alone for as long as it took to fail: one that refuses at
    once is soon asked again, and one that hangs holds up one call a second at most."""

    def __init__(self) -> None:
        self._failed = self._answered = float("-inf")  # monotonic times of the last call that did
        self._alone_until = float("-inf")
        self._failures = 0  # since the last answer

    def ask(self) -> float:
        """Before a call: the time (monotonic). Raises redis.ConnectionError if several calls failed of late."""
        asked = time.monotonic()
        if self._failures >= _FAILURES:
            if asked < self._alone_until:
                raise redis.ConnectionError("it has not answered of late, and is asked again within a second")
            self._alone_until = asked + _LONGEST_SECONDS  # until this call tells
        return asked

    def failed_since(self, asked: float) -> bool:
        """Whether calls have failed since then, and none has been answered."""
        return self._answered < asked < self._failed

    def failed(self, asked: float) -> None:
        """A call from then was not answered."""
        self._failed = time.monotonic()
        self._failures += 1
        took = self._failed - asked
        self._alone_until = self._failed + min(max(took, _SHORTEST_SECONDS), _LONGEST_SECONDS)

    def answered(self) -> None:
        """A call was."""
        self._failures = 0
        self._answered = time.monotonic()


class Turns:
    """Lets so many calls run at once; the others wait. Waiting for a turn has no limit: whoever takes requests bounds
    their number."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._seconds = seconds
        self._breaker = Breaker()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One call. Raises TimeoutError after the time limit; and redis.ConnectionError at once if calls failed and
        none succeeded while this one waited, or several of late."""
        asked = self._breaker.ask()
        async with self._free:
            if self._breaker.failed_since(asked):
                raise redis.ConnectionError("it did not answer the calls before this one")
            try:
                began = time.monotonic()
                async with _limit(self._seconds):
                    yield
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._breaker.failed(began)
                raise
            self._breaker.answered()


@contextlib.asynccontextmanager
async def _limit(seconds: float) -> AsyncIterator[None]:
    """As asyncio.timeout, in slices of time each of which the event loop must have seen the end of: while it is busy it
    hears no answer, and that is not the server's fault."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds / SLICES, lambda: later(SLICES - 1))

        def later(left: int) -> None:
            nonlocal timer
            if left:
                timer = loop.call_later(seconds / SLICES, later, left - 1)
            else:
                limit.reschedule(loop.time())

        try:
            yield
        finally:
            timer.cancel()
