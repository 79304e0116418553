"""Routes that are called without FastAPI's way to them answer as they do with it."""

import asyncio

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from feature_store.contracts.errors import InvalidInput, MatchLoopError, Unavailable
from online_serving.api import DIRECT, Services, routes
from online_serving.bodies import answer, read
from online_serving.direct import Direct
from online_serving.errors import BodyTooLarge, NotFound, add_error_handlers, broken_rule
from online_serving.metrics import REQUESTS, Measured
from online_serving.schemas import RecommendationRequest

ERRORS = {
    error.__class__.__name__: error
    for error in (
        MatchLoopError("a part is broken"), InvalidInput("too small"), Unavailable("away"), NotFound("no such item"),
        BodyTooLarge("large"), broken_rule("a", 1, "must be 2"), ClientDisconnect(), KeyError("a bug"),
    )
}  # fmt: skip


def application(direct: bool) -> FastAPI:
    app, api = FastAPI(), APIRouter()

    @api.post("/raise", status_code=202)
    async def fail(request: Request) -> Response:
        raise ERRORS[(await request.body()).decode()]

    @api.post("/answer", status_code=202)
    async def recommend(request: Request) -> Response:
        return answer((await read(request, RecommendationRequest)).model_dump(), 202)

    app.include_router(api)
    add_error_handlers(app)
    if direct:
        found = [route for route in api.routes if isinstance(route, APIRoute)]
        assert {route.path for route in found} == {"/raise", "/answer"}
        app.add_middleware(Direct, routes=found, handlers=app.exception_handlers)
    app.add_middleware(Measured)
    return app


def ask(app: FastAPI, method: str, path: str, content: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, content=content)

    found = asyncio.run(asking())
    return found.status_code, found.content, found.headers.raw


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        *(("POST", "/raise", name.encode()) for name in ERRORS),
        ("POST", "/answer", b'{"user_id": "ada", "slate_size": 5}'),
        ("POST", "/answer?a=b", b'{"user_id": "ada"}'),
        ("POST", "/answer", b'{"user_id": 5}'),
        ("POST", "/answer", b"{"),
        ("POST", "/answer", b'"' + b"a" * 1_100_000),
        ("GET", "/answer", b""),
        ("OPTIONS", "/answer", b""),
        ("POST", "/answer/", b'{"user_id": "ada"}'),
        ("POST", "/nothing", b""),
    ],
)
def test_an_answer_is_the_same(method: str, path: str, content: bytes) -> None:
    wanted = ask(application(direct=False), method, path, content)
    assert ask(application(direct=True), method, path, content) == wanted


def test_requests_are_counted_by_route() -> None:
    counted = REQUESTS.labels("/answer", "202")
    before = counted._value.get()
    ask(application(direct=True), "POST", "/answer", b'{"user_id": "ada"}')
    assert counted._value.get() == before + 1


def test_the_routes_are_those_of_the_api() -> None:
    found = [route for route in routes(Services()).routes if isinstance(route, APIRoute) and route.path in DIRECT]
    assert {route.path: route.methods for route in found} == {path: {"POST"} for path in DIRECT}
