"""What a process does when more is asked than it can answer: what it takes is answered in time, the rest at once with
503, and answers by way of the log and Redis go on meanwhile.

Recommendations are worked on one at a time, and between two of them the event loop does what else is due. A newcomer is
refused when those before it would take one and a half times as long as a request that does not wait usually takes: what
is answered then is to take less than three times as long as usual. Both times are measured, the second one while nobody
has to be refused: an overload must not become what is usual.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from online_serving.errors import error_answer
from online_serving.metrics import IN_FLIGHT, REFUSED, TURN

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # never refused: whoever watches must see a busy process too
_COMPUTED = "/v1/recommendations"  # begins the paths of what is computed in turn
_SHARE = 0.75  # of the requests in flight that recommendations may be; feedback and the catalogue have the rest as well
_FEWEST = 12  # may be ahead of a newcomer however short the usual time: requests come in swarms
_TIMES = 1.5  # the usual time may be waited for
_CALM_SECONDS = 1.0  # after a refusal, until times are usual ones again
_REFUSED_COMPUTED, _REFUSED_OTHERS = (REFUSED.labels(kind) for kind in ("recommendations", "other"))
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
        self._refused = -math.inf  # when somebody was last refused
        self._usual = 0.05  # seconds that a request takes which does not wait, on average ...
        self._deviation = 0.025  # ... and how far they are from it

    def refuses(self) -> bool:
        """Whether a newcomer would wait too long, behind those ahead."""
        now = time.perf_counter()
        longest = _TIMES * (self._usual + _DEVIATIONS * self._deviation)
        while self._recent and now - self._recent[0] > longest:
            self._recent.popleft()  # who has not come to the queue by now waits for something else
        ahead = self._waiting + min(len(self._recent), self._coming)
        if ahead < _FEWEST or ahead * self._work <= longest:
            return False
        self._refused = now
        return True

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Within it a request that was not refused may ask for a turn."""
        self._recent.append(time.perf_counter())
        self._coming += 1
        place = _Place()
        token = _place.set(place)
        try:
            yield
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

    @property
    def calm(self) -> bool:
        """Whether nobody had to be refused of late."""
        return self._calm(_CALM_SECONDS)

    def _calm(self, seconds: float) -> bool:
        return time.perf_counter() - self._refused >= seconds

    def usual(self, seconds: float) -> None:
        """Takes note of a request that got its turn at once: what it took altogether. In an overload that counts for
        nothing: the more is let in, the longer everything takes, and the more would be let in."""
        if not self._calm(seconds + _CALM_SECONDS):
            return
        error = seconds - self._usual
        self._usual += _GAIN * error
        self._deviation += _DEVIATIONS_GAIN * (abs(error) - self._deviation)


class _Place:
    """One request that was let in."""

    coming = True  # to the queue


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class Door:
    """Who comes in.

    Probes and metrics always do. All other requests do while fewer than `limit` are in flight, which bounds memory;
    recommendations while they are no more than a share of these, and `queue` does not refuse them.
    """

    def __init__(self, queue: WorkQueue, limit: int) -> None:
        self._queue, self._limit = queue, limit
        self._most_computed = max(1, int(_SHARE * limit))
        self._in_flight = self._computed = 0

    def refuses(self, path: str) -> str | None:
        """Why a request has to come again, which is counted; None if it may come in."""
        if path in _PROBES:
            return None
        computed = path.startswith(_COMPUTED)
        if self._in_flight >= self._limit or (computed and self._computed >= self._most_computed):
            why = f"{self._in_flight} requests are in flight (serving.max_in_flight)."
        elif computed and self._queue.refuses():
            why = "More recommendations are asked for than can be made in time."
        else:
            return None
        (_REFUSED_COMPUTED if computed else _REFUSED_OTHERS).inc()
        return f"{why} Send it again in a second."

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Within it a request that was not refused is worked on."""
        if path in _PROBES:
            yield
            return
        computed = path.startswith(_COMPUTED)
        with self._queue.inside() if computed else nullcontext():
            self._in_flight += 1
            self._computed += computed
            IN_FLIGHT.inc()
            try:
                yield
            finally:
                self._in_flight -= 1
                self._computed -= computed
                IN_FLIGHT.dec()


class Admission:
    """Answers 503 at once, with Retry-After, whatever the door refuses. What was refused has left no trace: it can be
    sent again. Most of it never comes here (`LimitedProtocol`)."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (why := self._door.refuses(scope["path"])) is not None:
            await error_answer(503, "overloaded", why)(scope, receive, send)
        else:
            with self._door.inside(scope["path"]):
                await self._app(scope, receive, send)
