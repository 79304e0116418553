"""The API process: everything wired together, started and stopped in order."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import redis.asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from feature_store.contracts.clock import Clock, SystemClock
from feature_store.contracts.identity import Keyring
from feature_store.online.connection import asyncio_client
from feature_store.online.store import ASYNC_CONNECTIONS, AsyncOnlineStore
from online_serving import metrics
from online_serving.api import DIRECT, Services, routes
from online_serving.audit import AuditLog, without_user_ids
from online_serving.auth import KeyRequired
from online_serving.browsing import Browsing
from online_serving.catalogue import Catalogue
from online_serving.config import ServerConfig
from online_serving.decision_pages import DecisionPages
from online_serving.decisions import DecisionAppender
from online_serving.descriptions import Descriptions
from online_serving.direct import Direct
from online_serving.errors import add_error_handlers
from online_serving.event_log import EventLog
from online_serving.feedback import FeedbackIntake
from online_serving.following import Following
from online_serving.keys import Key, Keys
from online_serving.last_seen import LastSeen
from online_serving.loop_lag import measuring_lag
from online_serving.openapi import describe
from online_serving.operation import operation
from online_serving.overload import Admission, Door, WorkQueue
from online_serving.pages.pages import pages
from online_serving.previews import previews
from online_serving.readiness import Readiness
from online_serving.recommendations import Recommender
from online_serving.serving_followers import blocking_client
from online_serving.shadow import Shadow
from online_serving.tracing import RESPONSE
from online_serving.users import Users
from online_serving.webhooks import SegmentIntake

_log = logging.getLogger(__name__)

_REDIS_SECONDS = 5.0


def create_app(config: ServerConfig, clock: Clock | None = None) -> FastAPI:
    """The ASGI application. Starting it connects to the log (LogMismatch if its partitions are not those of the
    settings; if it does not answer, answers go without it until it does) and begins to follow Redis; it is ready when
    /readyz says so.

    `state.services` of the application is what its routes call.
    """
    services, queue, clock = Services(), WorkQueue(), clock or SystemClock()
    keys, audit = Keys.of_settings(config.serving, config.home, clock), AuditLog(config.home, clock)
    documented = config.serving.docs

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _running(config, services, queue, clock):
            yield

    def noted(key: Key | None, method: str, path: str, status: int) -> None:
        what = f"{method} {without_user_ids(path, Keyring(config.secret))}"
        audit.note(f"key {key.id} ({key.name})" if key else "somebody on a page", what, status)

    app = FastAPI(
        title="MatchLoop",
        version=_version(),
        description="Recommendations that learn from feedback within a second.",
        lifespan=lifespan,
        docs_url="/docs" if documented else None,
        redoc_url="/redoc" if documented else None,
        openapi_url="/openapi.json" if documented else None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    api = routes(services)
    app.include_router(api)
    app.include_router(previews(services))
    app.include_router(operation(services, keys))
    app.include_router(pages(config))
    add_error_handlers(app)
    describe(app, config, keys)
    often = [route for route in api.routes if isinstance(route, APIRoute) and route.path in DIRECT]
    app.add_middleware(Direct, routes=often, handlers=app.exception_handlers)
    app.state.door = Door(queue, config.serving.max_in_flight)
    app.add_middleware(Admission, door=app.state.door)
    app.add_middleware(KeyRequired, known=keys, rate=config.serving.rate_limit, audit=noted)
    if config.serving.cors_origins:
        # Not the header that marks calls of our own pages: they are answered by the key that a browser remembers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.serving.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "traceparent", "tracestate"],
            expose_headers=["Retry-After", RESPONSE],
        )
    app.add_middleware(metrics.Measured)
    return app


@contextlib.asynccontextmanager
async def _running(config: ServerConfig, services: Services, queue: WorkQueue, clock: Clock) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as cleanup:
        log = EventLog(config.kafka, clock)
        await cleanup.enter_async_context(log.running(config.bootstrap))
        decisions = DecisionAppender(log, config.serving.decision_deadline_ms)
        cleanup.push_async_callback(decisions.close)
        retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 1)
        client = await cleanup.enter_async_context(
            asyncio_client(config.redis_url, connections=ASYNC_CONNECTIONS, retry=retry, socket_timeout=_REDIS_SECONDS)
        )

        online = AsyncOnlineStore(client, config.redis)
        keyring = Keyring(config.secret)
        following = Following(config, clock, loop)
        services.clock, services.current = clock, following.current
        shadowing = blocking_client(config, 1)
        cleanup.callback(shadowing.close)
        shadow = Shadow(config, shadowing, clock)
        shadow.start()
        cleanup.push_async_callback(asyncio.to_thread, shadow.join)
        cleanup.callback(shadow.stop)
        last_seen = LastSeen()
        services.recommender = Recommender(
            following.treated,
            keyring,
            online,
            decisions,
            queue,
            config.serving,
            clock,
            np.random.default_rng(config.seed),
            last_seen,
            shadow,
        )
        services.browsing = Browsing(services.current, Descriptions(online.catalogue), config.serving, clock)
        services.feedback = FeedbackIntake(keyring, log, config.serving, config.rewards, clock)
        services.catalogue = Catalogue(online, log, config.serving, clock)
        services.users = Users(online, log, keyring, config.serving, clock, last_seen)
        services.segment = SegmentIntake(services.feedback, services.users, config.webhooks, config.rewards)
        services.decisions = DecisionPages(config.layout, keyring)
        services.readiness = Readiness(services.current, online, log, config.kafka)

        await cleanup.enter_async_context(measuring_lag())
        await cleanup.enter_async_context(following.running())
        yield


def _version() -> str:
    try:
        return version("matchloop")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"
