"""Each request within its trace, which the answer names. Plain ASGI: it costs microseconds."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_store.contracts.tracing import continued, within

RESPONSE = "traceresponse"
_PARENT = b"traceparent"


class Traced:
    """Stands before everything else, so that whoever answers names the trace, errors included; only what the protocol
    itself refuses has none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = continued([value for name, value in scope["headers"] if name == _PARENT])

        async def naming(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[RESPONSE] = trace.header()
            await send(message)

        with within(trace):
            await self._app(scope, receive, naming)
