"""Starts one API process."""

import os

from online_serving.config import ServerConfig

_SHUTDOWN_SECONDS = 5
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT; requests in flight are finished first.

    Call it before NumPy is imported: arithmetic libraries read their number of threads when they are loaded, and more
    than one thread each makes a server slower.
    """
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    import uvicorn

    from online_serving.app import create_app

    uvicorn.run(
        create_app(config),
        host=config.serving.host,
        port=config.serving.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
