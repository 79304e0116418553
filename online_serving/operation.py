"""The routes for operators: probes, metrics, and what answers are made with.

The API has them beside its own routes, and a process may have them on an address of their own (`operations`), which
answers from the first moment on: while a release loads, too.
"""

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.types import Scope as HttpScope

from online_serving.answers import ErrorAnswer
from online_serving.api import Services
from online_serving.auth import caller
from online_serving.bodies import answer
from online_serving.errors import add_error_handlers
from online_serving.keys import Keys, Scope

_RETRY_AFTER = {"Retry-After": "1"}


class ReadyAnswer(BaseModel):
    """Whether the process should get requests, and more for callers with the API key."""

    ready: bool


class ParametersAnswer(BaseModel):
    """What answers are made with."""

    release: str
    namespace: str
    created: int = Field(description="When the release was made, ms since the epoch.")
    offsets: list[int] = Field(description="Per partition of the log, the first offset not learnt from yet.")
    digest: str | None = Field(default=None, description="Of the sums, if it was asked for.")


def operation(services: Services, keys: Keys | None) -> APIRouter:
    """The routes. Where keys are required, /readyz says no more than yes or no to whoever does not send that of an
    admin."""
    api = APIRouter(tags=["operation"])

    @api.get("/healthz", summary="Whether the process runs")
    async def healthz() -> Response:
        return answer({"status": "ok"})

    @api.get(
        "/readyz",
        summary="Whether the process should get requests",
        description="Callers with an admin's key are told why not, what serves, and how far it has learnt.",
        responses={200: {"model": ReadyAnswer}, 503: {"model": ReadyAnswer, "description": "Not ready."}},
    )
    async def readyz(request: Request) -> Response:
        ready, content = await services.ready()
        if keys is not None and keys.required and not _is_admin(keys, request.scope):
            content = {"ready": ready}
        elif not ready:
            content = {"error": "not_ready", "message": " ".join(content["problems"].values()), **content}
        response = answer(content, 200 if ready else 503)
        if not ready:
            response.headers.update(_RETRY_AFTER)
        return response

    @api.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @api.get(
        "/v1/parameters",
        summary="What answers are made with, and how far it has learnt",
        description="With `digest=true` a digest as well: processes that have learnt the same have the same one.",
        responses={
            200: {"model": ParametersAnswer},
            503: {"model": ErrorAnswer, "description": "No release serves yet, or no digest now. Try again."},
        },
        openapi_extra={"parameters": [{"name": "digest", "in": "query", "schema": {"enum": ["true"]}}]},
    )
    async def parameters(request: Request) -> Response:
        state = services.current.state
        created = state.snapshot.manifest.created
        content = {**state.active._asdict(), "created": created, "offsets": state.parameters.offsets}
        if request.query_params.get("digest") == "true":
            content["digest"] = await state.digest()
        return answer(content)

    return api


def _is_admin(keys: Keys, scope: HttpScope) -> bool:
    key = caller(keys, scope)
    return key is not None and key.may(Scope.ADMIN)


def operations(services: Services) -> FastAPI:
    """An application of these routes alone, without a key: for an address that only operators reach."""
    app = FastAPI(title="MatchLoop, one process", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(operation(services, None))
    add_error_handlers(app)
    return app
