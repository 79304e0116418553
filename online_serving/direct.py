"""The routes that nearly all requests are for, without FastAPI's way to them: it describes them, and would take as long
to find and call them as they take for all that is HTTP."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

_BUG = Exception  # whose handler stands before everything


class Direct:
    """Calls the endpoints of these routes, which take a request and nothing else, and has errors answered by their
    handlers, as the application does. Stands right before its router."""

    def __init__(
        self, app: ASGIApp, routes: Iterable[APIRoute], handlers: Mapping[Any, Callable[[Request, Any], Any]]
    ) -> None:
        """handlers: the application's, by class of error."""
        self._app, self._handlers = app, handlers
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request)
        except Exception as error:
            kind = next((kind for kind in type(error).__mro__ if kind in self._handlers), _BUG)
            if kind is _BUG:
                raise
            response = await self._handlers[kind](request, error)
        await response(scope, receive, send)
