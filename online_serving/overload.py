"""A bound on the requests that a process works on: beyond it answers would only come later and later."""

from starlette.types import ASGIApp, Receive, Scope, Send

from online_serving.errors import error_answer
from online_serving.metrics import IN_FLIGHT

_UNBOUNDED = frozenset({"/healthz", "/readyz", "/metrics"})  # whoever watches must see a busy process too


class InFlightLimit:
    """Answers 503 at once, with Retry-After, while `limit` requests are in flight."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in _UNBOUNDED:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._limit:
            message = f"{self._limit} requests are in flight (serving.max_in_flight). Send it again in a second."
            await error_answer(503, "overloaded", message)(scope, receive, send)
            return
        self._in_flight += 1
        IN_FLIGHT.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            IN_FLIGHT.dec()
