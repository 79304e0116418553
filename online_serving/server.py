"""Starts one API process."""

import os
import socket
from typing import TYPE_CHECKING

from feature_store.contracts.errors import Unavailable
from online_serving.config import ServerConfig

if TYPE_CHECKING:
    import uvicorn

_SHUTDOWN_SECONDS = 5
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def serve(config: ServerConfig, port: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT; requests in flight are finished first. Raises Unavailable if a port is taken.

    port: of this process alone; None: serving.port. One of several workers listens on serving.port too: the kernel
    spreads connections over those that listen, which a process does when it can answer.

    Call it before NumPy is imported: arithmetic libraries read their number of threads when they are loaded, and more
    than one thread each makes a server slower.
    """
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    import uvicorn

    host, shared = config.serving.host, config.serving.workers > 1
    listening = [_bound(host, config.serving.port if port is None else port, shared)]
    if shared and port is not None:
        listening.append(_bound(host, config.serving.port, shared))
    server = uvicorn.Server(http_settings(config))
    server.run(listening)
    if not server.started:
        raise SystemExit(1)  # not 0: whoever supervises this process should start it again


def http_settings(config: ServerConfig) -> "uvicorn.Config":
    """The application, and how uvicorn serves it."""
    import uvicorn

    from online_serving.app import create_app
    from online_serving.protocol import LimitedProtocol

    return uvicorn.Config(
        create_app(config),
        loop="uvloop",
        http=LimitedProtocol.allowing(config.serving.request_seconds),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=config.serving.keep_alive_seconds,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise Unavailable(f"{host}:{port} cannot be listened on ({error.strerror}). Set serving.port.") from None
    return bound
