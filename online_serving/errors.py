"""What is wrong with a request, and the answers that say so: JSON, with what to do, and never a stack trace."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from feature_store.contracts.errors import ForgedDecision, InvalidInput, MatchLoopError, Unavailable
from online_serving.expressions import BrokenExpression, parse

_log = logging.getLogger(__name__)

_MAX_VALUE_CHARACTERS = 200
RETRY_AFTER_SECONDS = "1"
_CLIENT_GONE = 499  # nginx's number for a client that disconnects, or is cut off, before its request is complete


class BodyTooLarge(MatchLoopError):
    """A request body is larger than the API reads."""


class NotFound(MatchLoopError):
    """There is nothing of this id."""


class Overloaded(Unavailable):
    """More is asked than can be answered in time."""


class BrokenRules(InvalidInput):
    """Fields of a request break published rules."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        first = details[0]
        others = f" (and {len(details) - 1} more)" if details[1:] else ""
        super().__init__(f"{first['field']}: {first['rule']}{others}")
        self.details = details


def broken_rule(field: str, value: Any, rule: str) -> BrokenRules:
    """One broken rule."""
    return BrokenRules([{"field": field, "value": shortened(value), "rule": rule}])


def check_filter(expression: str | None, field: str = "filter") -> None:
    """Raises BrokenRules for a filter that cannot be read."""
    try:
        if expression is not None:
            parse(expression)
    except BrokenExpression as error:
        raise broken_rule(field, expression, str(error)) from None


def broken_detail(problem: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
    """What pydantic says of one field, as a answers.BrokenRule. skip: of its location, parts that are no field."""
    field = ".".join(str(part) for part in problem["loc"][skip:]) or "body"
    return {"field": field, "value": shortened(problem["input"]), "rule": problem["msg"]}


def error_content(code: str, message: str, details: list[dict[str, Any]] | None = None) -> bytes:
    """A answers.ErrorAnswer as JSON."""
    content: dict[str, Any] = {"error": code, "message": message}
    if details is not None:
        content["details"] = details
    return orjson.dumps(content)


def error_answer(status: int, code: str, message: str, details: list[dict[str, Any]] | None = None) -> Response:
    """A JSON answer that says what is wrong and what to do."""
    response = Response(error_content(code, message, details), status, media_type="application/json")
    if status == 503:
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def add_error_handlers(app: FastAPI) -> None:
    """Has every error answered as JSON."""
    statuses: list[tuple[type[MatchLoopError], int, str]] = [
        (BodyTooLarge, 413, "body_too_large"),
        (NotFound, 404, "not_found"),
        (ForgedDecision, 404, "unknown_decision"),
        (InvalidInput, 422, "invalid_input"),
        (Overloaded, 503, "overloaded"),
        (Unavailable, 503, "unavailable"),
        (MatchLoopError, 500, "failed"),
    ]

    async def on_our_error(_: Request, error: Exception) -> Response:
        status, code = next((s, c) for kind, s, c in statuses if isinstance(error, kind))
        return error_answer(status, code, str(error), getattr(error, "details", None))

    async def on_broken_query(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        broken = BrokenRules([broken_detail(problem, skip=1) for problem in error.errors()])
        return await on_our_error(_, broken)

    async def on_http_error(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        code, detail = ("not_found", "There is nothing here") if status == 404 else ("refused", f"{error}")
        response = error_answer(status, code, f"{detail}. The API is described at /docs.")
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        if status == 405:  # the router names the methods of one route, and a path may have several
            response.headers["Allow"] = ", ".join(_methods(request))
        return response

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)  # for the metrics: nobody reads it

    async def on_bug(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_answer(500, "failed", "The server failed on this request; its log says why.")

    app.add_exception_handler(MatchLoopError, on_our_error)
    app.add_exception_handler(RequestValidationError, on_broken_query)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_bug)


def _methods(request: Request) -> list[str]:
    """The methods that the request's path takes."""
    routes = request.app.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def shortened(value: Any) -> Any:
    """The value if it is short and fits JSON, otherwise the beginning of its text."""
    if value is None or (isinstance(value, int) and abs(value) < 2**53):
        return value
    readable = value.decode(errors="replace") if isinstance(value, bytes) else value
    text = readable if isinstance(readable, str) else repr(readable)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[:_MAX_VALUE_CHARACTERS] + "..."
