"""What stands before every request: the API key, and the clock of the metrics. Plain ASGI: it costs microseconds."""

import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from online_serving.bodies import error_answer
from online_serving.metrics import LATENCY, REQUESTS

_OPEN = frozenset({"/healthz"})  # for probes that cannot send a key
_PREFIX = b"bearer "


class BearerAuth:
    """Refuses requests without `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in _OPEN or self._authorised(scope):
            await self._app(scope, receive, send)
            return
        response = error_answer(401, "unauthorised", "Send `Authorization: Bearer KEY` with the serving.api_key.")
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _authorised(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, key = given[: len(_PREFIX)], given[len(_PREFIX) :]
        return scheme.lower() == _PREFIX and hmac.compare_digest(key.strip(), self._key)


class Measured:
    """Counts and times requests by route (never by path: ids would make endless label values)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(route, str(status)).inc()
            LATENCY.labels(route).observe(time.perf_counter() - started)
