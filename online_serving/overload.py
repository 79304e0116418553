"""What a process does when more is asked than it can answer: what it takes is answered in time, the rest at once with
503, and answers by way of the log and Redis go on meanwhile.

Recommendations are worked on one at a time, and between two of them the event loop does what else is due. A newcomer is
refused when those before it would take longer than twice what a request takes that does not wait: what is answered
then is to take about three times as long as usual. Both times are measured all the while.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from online_serving.errors import error_answer
from online_serving.metrics import IN_FLIGHT, REFUSED, TURN

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # never refused: whoever watches must see a busy process too
_COMPUTED = "/v1/recommendations"  # begins the paths of what is computed in turn
_SHARE = 0.75  # of the requests in flight that recommendations may be; feedback and the catalogue have the rest as well
_FEWEST = 12  # may be ahead of a newcomer however short the usual time: requests come in swarms
_TIMES = 2.0  # the usual time may be waited for
_GAIN, _DEVIATIONS_GAIN, _DEVIATIONS = 1 / 16, 1 / 8, 4.0  # as TCP estimates times (RFC 6298), more slowly


class WorkQueue:
    """Has tasks of the event loop compute one after the other, first come first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._coming = 0  # came in, and have not come to the queue yet
        self._recent: deque[float] = deque()  # when those came in who came of late
        self._waiting = 0
        self._left = 0.0  # when the last turn ended
        self._work = 0.01  # seconds that a turn keeps the others waiting, on average; first guesses, soon forgotten
        self._usual = 0.05  # seconds that a request takes which does not wait, on average ...
        self._deviation = 0.025  # ... and how far they are from it

    @contextmanager
    def inside(self) -> Iterator[bool]:
        """Within it a request may ask for a turn. Yields whether it should: not if those ahead take too long."""
        now = time.perf_counter()
        longest = _TIMES * (self._usual + _DEVIATIONS * self._deviation)
        while self._recent and now - self._recent[0] > longest:
            self._recent.popleft()  # who has not come to the queue by now waits for something else
        ahead = self._waiting + min(len(self._recent), self._coming)
        if ahead >= _FEWEST and ahead * self._work > longest:
            yield False
            return
        self._recent.append(now)
        self._coming += 1
        place = _Place()
        token = _place.set(place)
        try:
            yield True
        finally:
            _place.reset(token)
            self._arrives(place)

    def _arrives(self, place: "_Place | None") -> None:
        if place is not None and place.coming:
            place.coming = False
            self._coming -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Waits for a turn and has it; yields whether it came at once."""
        self._arrives(_place.get())
        came, at_once = time.perf_counter(), not (self._waiting or self._lock.locked())
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            # Acknowledgements, answers of Redis and refusals come first: the next turn is some ms away.
            await asyncio.sleep(0)
            TURN.observe(time.perf_counter() - came)
            yield at_once
        finally:
            self._lock.release()
            now = time.perf_counter()
            work = now - max(came, self._left)
            self._left = now
            self._work += _GAIN * (work - self._work)

    def usual(self, seconds: float) -> None:
        """Takes note of a request that got its turn at once: what it took altogether."""
        error = seconds - self._usual
        self._usual += _GAIN * error
        self._deviation += _DEVIATIONS_GAIN * (abs(error) - self._deviation)


class _Place:
    """One request that was let in."""

    coming = True  # to the queue


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class Admission:
    """Answers 503 at once, with Retry-After, what is beyond the process's means.

    Probes and metrics are always answered. All other requests are taken while fewer than `limit` are in flight, which
    bounds memory; recommendations while they are no more than a share of these, and `queue` lets them in. What was
    refused has left no trace: it can be sent again.
    """

    def __init__(self, app: ASGIApp, queue: WorkQueue, limit: int) -> None:
        self._app, self._queue, self._limit = app, queue, limit
        self._most_computed = max(1, int(_SHARE * limit))
        self._in_flight = self._computed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        computed = scope["path"].startswith(_COMPUTED)
        if self._in_flight >= self._limit or (computed and self._computed >= self._most_computed):
            why = f"{self._in_flight} requests are in flight (serving.max_in_flight)."
            await self._refuse(computed, why)(scope, receive, send)
            return
        with self._queue.inside() if computed else nullcontext(True) as let_in:
            if not let_in:
                why = "More recommendations are asked for than can be made in time."
                await self._refuse(computed, why)(scope, receive, send)
                return
            self._in_flight += 1
            self._computed += computed
            IN_FLIGHT.inc()
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight -= 1
                self._computed -= computed
                IN_FLIGHT.dec()

    def _refuse(self, computed: bool, why: str) -> Response:
        REFUSED.labels("recommendations" if computed else "other").inc()
        return error_answer(503, "overloaded", f"{why} Send it again in a second.")
