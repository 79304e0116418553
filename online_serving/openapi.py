"""The description of the API: what FastAPI finds out from the routes, and what it cannot know. The routes read their
bodies by themselves, a key may be required, some limits are settings, and some requests never reach a route."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from online_serving.answers import ErrorAnswer
from online_serving.auth import OPEN, scopes_for
from online_serving.config import ServerConfig
from online_serving.keys import Keys
from online_serving.schemas import (
    EventsRequest,
    FeedbackRequest,
    ItemBody,
    ItemsRequest,
    MergeBody,
    PreviewRequest,
    RecommendationRequest,
    RecommendationsRequest,
    UserBody,
)

_REFERENCE = "#/components/schemas/{model}"
_BODIES: list[type[BaseModel]] = [
    *(RecommendationRequest, PreviewRequest, RecommendationsRequest, FeedbackRequest, EventsRequest),
    *(ItemBody, ItemsRequest, UserBody, MergeBody, ErrorAnswer),
]
_KEY = "key"


def body(model: type[BaseModel]) -> dict[str, Any]:
    """For openapi_extra: the operation takes the model as JSON."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def any_object(example: dict[str, Any]) -> dict[str, Any]:
    """For openapi_extra: the operation takes JSON that somebody else describes."""
    schema = {"type": "object", "examples": [example]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI, config: ServerConfig, keys: Keys) -> None:
    """Has the application describe itself in full at /openapi.json."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, config, keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, config: ServerConfig, keys: Keys) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REFERENCE)
    models = schema["components"]["schemas"]
    models |= bodies["$defs"]
    for model in ("RecommendationRequest", "PreviewRequest"):
        models[model]["properties"]["slate_size"]["anyOf"][0]["maximum"] = config.serving.max_slate_size
    for event in ("FeedbackEvent", "UserEvent"):
        models[event]["properties"]["type"]["enum"] = sorted(config.rewards.weights)
    if with_key := keys.required:
        schema["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            answers["400"] = _error("The request is not HTTP. The connection is closed.")
            if "requestBody" in operation:
                answers["408"] = _error("The request did not come in time. The connection is closed.")
            if with_key and path not in OPEN:
                scopes = " or ".join(sorted(scopes_for(method.upper(), path)))
                answers["401"] = _error("The key is missing or wrong.")
                answers["403"] = _error(f"The key has not the scope {scopes}.")
                answers["429"] = _error("The key has sent too many requests. Wait as long as Retry-After says.")
                operation["security"] = [{_KEY: []}]
    return schema


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=ErrorAnswer.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
