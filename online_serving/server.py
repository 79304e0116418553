"""Starts one API process, and ends it so that nobody notices."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from online_serving.config import ServerConfig
from online_serving.settings import ServingSettings

if TYPE_CHECKING:  # they import NumPy
    import uvicorn
    from fastapi import FastAPI

_SHUTDOWN_SECONDS = 5
_PORT = "serving.port"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Address = tuple[str, int]  # host, port


def serve(
    config: ServerConfig,
    operations: Address | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    clock: Clock | None = None,
) -> None:
    """Serves on serving.host:serving.port until SIGTERM or SIGINT. Raises Unavailable if an address is taken.

    operations: where probes, metrics and parameters of this very process are as well, from the first moment on. One of
    several workers listens on serving.port when it can answer: the kernel spreads connections over those that listen.
    A single one listens at once, and answers 503 while its release loads.

    Told to stop, it first says at /readyz that it is not ready, goes on answering for serving.drain_seconds, then ends
    to listen and finishes the requests in flight. A second signal ends the wait.

    loop_factory: makes the event loop, uvloop's if not given. clock: the machine's if not given.

    Call it, or at least one_thread, before NumPy is imported.
    """
    one_thread()
    import uvloop

    public = _bound((config.serving.host, config.serving.port), config.serving.workers > 1, _PORT)
    own = None if operations is None else _bound(operations, False, "telemetry.port, or --metrics-port")
    with asyncio.Runner(loop_factory=loop_factory or uvloop.new_event_loop) as runner:
        runner.run(_serve(config, public, own, clock))


def one_thread() -> None:
    """Has the arithmetic libraries compute in the thread that calls them: with threads of their own a server is slower.
    They look when they are loaded."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"


async def _serve(config: ServerConfig, public: socket.socket, own: socket.socket | None, clock: Clock | None) -> None:
    from online_serving.app import create_app
    from online_serving.operation import operations

    asked, asked_again = _signals()
    app = create_app(config, clock)
    services = app.state.services
    async with contextlib.AsyncExitStack() as running:
        if own is not None:
            await running.enter_async_context(_listening(operations(services), own, config.serving))
        await running.enter_async_context(app.router.lifespan_context(app))
        if config.serving.workers > 1:
            await _first(services.current.serving, asked)
            _listen(public, _PORT)
        if not asked.is_set():
            async with _listening(app, public, config.serving):
                await asked.wait()
                services.readiness.stopping = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asked_again.wait(), config.serving.drain_seconds)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first signal to stop, and by the second."""
    first, second = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return first, second


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


@contextlib.asynccontextmanager
async def _listening(app: "FastAPI", bound: socket.socket, serving: ServingSettings) -> AsyncIterator[None]:
    """Answers there; at the end it listens no more, and requests in flight have been finished."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are for the process, which may have two of these

    settings = http_settings(app, serving)
    settings.lifespan = "off"  # one application, one life, perhaps several addresses
    server = Server(settings)
    answering = asyncio.create_task(server.serve([bound]))
    try:
        yield
    finally:
        server.should_exit = True
        await answering


def http_settings(app: "FastAPI", serving: ServingSettings) -> "uvicorn.Config":
    """How uvicorn serves an application."""
    import uvicorn

    from online_serving.protocol import LimitedProtocol
    from online_serving.tracing import Traced

    return uvicorn.Config(
        Traced(app),
        loop="uvloop",
        http=LimitedProtocol.allowing(serving.request_seconds, getattr(app.state, "door", None)),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=serving.keep_alive_seconds,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def _bound(address: Address, shared: bool, setting: str) -> socket.socket:
    """Bound to the address, and listening unless several are to be bound to it."""
    bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with _closed_if_taken(bound, address, setting):
        bound.bind(address)
    if not shared:
        _listen(bound, setting)
    return bound


def _listen(bound: socket.socket, setting: str) -> None:
    """Somebody else may have bound the same address and listen there: uvloop would not say that it cannot."""
    with _closed_if_taken(bound, bound.getsockname()[:2], setting):
        bound.listen()


@contextlib.contextmanager
def _closed_if_taken(bound: socket.socket, address: Address, setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        bound.close()
        host, port = address
        raise Unavailable(f"{host}:{port} cannot be listened on ({error.strerror}). Set {setting}.") from None
