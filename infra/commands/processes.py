"""The processes that the stack supervises. People use `matchloop up`."""

import signal
import threading
from typing import Annotated

import typer

from infra.console import options
from infra.telemetry import log_to_stderr, serve_metrics

MetricsPort = Annotated[int | None, typer.Option(help="Port of GET /metrics; none: no metrics.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(hidden=True)(serve)
    app.command(hidden=True)(update)
    app.command(hidden=True)(sink)


def serve(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="Port of this process alone; default: serving.port.")] = None,
) -> None:
    """Answer HTTP requests until stopped. With serving.workers > 1 also on serving.port, shared with the others.

    Example: `matchloop serve --port 8081`
    """
    from infra.connections import kafka_bootstrap, redis_url
    from online_serving.config import ServerConfig
    from online_serving.server import serve as run

    log_to_stderr("info")
    settings = options(context).connected_settings()
    config = ServerConfig(
        home=settings.home,
        secret=settings.secret_bytes(),
        bootstrap=kafka_bootstrap(settings),
        redis_url=redis_url(settings),
        kafka=settings.kafka,
        redis=settings.redis,
        serving=settings.serving,
        bandit=settings.bandit,
        rewards=settings.rewards,
        experiment=settings.experiment,
    )
    run(config, port)


def update(context: typer.Context, metrics_port: MetricsPort = None) -> None:
    """Fold the log into the bandit state until stopped.

    Example: `matchloop update --metrics-port 9101`
    """
    from feature_store.bandit_state import BanditStore
    from feature_store.membership import Membership
    from feature_store.online import OnlineStore
    from infra.connections import kafka_bootstrap, redis_client
    from streaming.kafka import Log
    from streaming.updater import run

    log_to_stderr("info")
    settings = options(context).connected_settings()
    bootstrap, stop = kafka_bootstrap(settings), _stop_on_signal()
    with redis_client(settings) as client:
        Log(settings.kafka, bootstrap).create_topics()
        serve_metrics(metrics_port)  # from here on the supervisor sees that it works
        store, online = BanditStore(client, settings.redis), OnlineStore(client, settings.redis)
        with Membership(client, settings.redis, settings.updater.session_seconds) as membership:
            run(settings.kafka, bootstrap, settings.rewards, store, online, membership, settings.home, stop)


def sink(context: typer.Context, metrics_port: MetricsPort = None) -> None:
    """Write the log to the Parquet lake until stopped.

    Example: `matchloop sink --metrics-port 9102`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.connections import kafka_bootstrap
    from streaming.kafka import Log
    from streaming.sink import run

    log_to_stderr("info")
    settings = options(context).connected_settings()
    bootstrap, stop = kafka_bootstrap(settings), _stop_on_signal()
    Log(settings.kafka, bootstrap).create_topics()
    serve_metrics(metrics_port)
    run(settings.kafka, bootstrap, settings.home / "lake", settings.lake, SystemClock(), stop)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
