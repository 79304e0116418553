"""The pages for people: HTML, a style sheet and JavaScript, without a build step. They call the API as any client does.

They load nothing from elsewhere and run nothing that is not a file of theirs: `_POLICY` has the browser see to it. What
the API says is put into the page as text, never as HTML.
"""

import asyncio
import hashlib
import html
import math
import re
import time
from collections.abc import Iterable
from importlib import resources
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from online_serving.bodies import answer
from online_serving.config import ServerConfig
from online_serving.pages.training import told
from online_serving.settings import Surface
from streaming.settings import VIEW

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_OVERVIEW_SECONDS = 2.0
_SLATE = 6  # items: two slates fit beside each other
_LABEL = re.compile(r"has\((\w+)\)")
_LIKES, _DISLIKES = ("like", "click", "purchase"), ("dislike", "skip")  # event types, the best name first


def pages(config: ServerConfig) -> APIRouter:
    """The pages that the settings ask for, and the files that they load."""
    router = APIRouter(include_in_schema=False)
    files = resources.files("online_serving.pages") / "static"
    if config.serving.playground:
        _serve(router, "/", (files / "playground.html").read_text("utf-8"), "text/html", _settings(config))
        _training(router, config)
    if config.serving.dashboard:
        _serve(router, "/dashboard", (files / "dashboard.html").read_text("utf-8"), "text/html", _settings(config))
        _overview(router, config)
    for file in sorted(files.iterdir(), key=lambda file: file.name):
        suffix = file.name[file.name.rfind(".") :]
        if (config.serving.playground or config.serving.dashboard) and suffix in _TYPES:
            _serve(router, f"/pages/{file.name}", file.read_text("utf-8"), _TYPES[suffix])
    return router


def _settings(config: ServerConfig) -> dict[str, Any]:
    """What the pages cannot ask the API."""
    weights, bandit = config.rewards.weights, config.bandit
    return {
        "users": config.serving.playground_users,
        "slate_size": min(config.serving.slate_size, _SLATE),
        "previewed": config.serving.max_slate_size,
        "like": next((name for name in _LIKES if weights.get(name, 0) > 0), None),
        "dislike": next((name for name in _DISLIKES if weights.get(name, 1) <= 0), None),
        "training": told(config.home) is not None,
        "view": VIEW if VIEW in weights else None,
        "docs": config.serving.docs,
        "playground": config.serving.playground,
        "dashboard": config.serving.dashboard,
        "links": config.serving.dashboard_links,
        "labels": _labels(config.serving.surfaces.values()),
        "surfaces": {
            name: bandit.share_on(name)
            for name in ("default", *config.serving.surfaces, *bandit.explore_share_by_surface)
        },
    }


def _labels(surfaces: Iterable[Surface]) -> list[str]:
    """Attributes for which an item is boosted or buried if only it has them."""
    named = (_LABEL.fullmatch(expression) for surface in surfaces for expression in surface.boosts)
    return sorted({found[1] for found in named if found})


def _training(router: APIRouter, config: ServerConfig) -> None:
    """How far what is trained meanwhile is, if anything is."""

    @router.get("/playground.json")
    async def playground() -> Response:
        return answer({"training": told(config.home)})


def _overview(router: APIRouter, config: ServerConfig) -> None:
    """What the dashboard shows of the installation: found out once for all who look within the same seconds."""
    found: dict[str, Any] = {}
    asking, found_at = asyncio.Lock(), -math.inf

    @router.get("/dashboard.json")
    async def overview() -> Response:
        nonlocal found, found_at
        async with asking:
            if config.overview is not None and time.monotonic() > found_at + _OVERVIEW_SECONDS:
                found = await asyncio.to_thread(config.overview)
                found_at = time.monotonic()
        return answer(found)


def _serve(router: APIRouter, path: str, text: str, media_type: str, settings: dict[str, Any] | None = None) -> None:
    if settings is not None:
        text = text.replace("{settings}", html.escape(orjson.dumps(settings).decode()))
    content = text.encode()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

    @router.get(path)
    async def page(request: Request) -> Response:
        headers = {**_HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)
