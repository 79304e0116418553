"""The processes that the stack supervises, each as a command: for an orchestrator or an init system of yours."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import options
from infra.telemetry import Reporting, log_to_stderr, serve_metrics

if TYPE_CHECKING:
    from infra.settings import Settings

MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port on telemetry.host of GET /metrics; default: telemetry.port.")
]

_LOOK_SECONDS = 1.0  # between two looks at the schedule


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (serve, update, sink, schedule, connect):
        app.command(rich_help_panel="Processes for an orchestrator (on one machine, up starts them)")(command)


def serve(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on serving.host; default: serving.port.")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Answer HTTP requests until stopped.

    /healthz says that it lives, /readyz that it should get requests: both on serving.port, and with /metrics on
    telemetry.port. On SIGTERM it says no at /readyz, and ends serving.drain_seconds later. With serving.workers > 1
    several share serving.port on one host.

    Example: `matchloop serve --port 8081 --metrics-port 9103`
    """
    from feature_store.contracts.errors import Unavailable
    from infra.api_config import api_config
    from infra.connections import redis_client
    from online_serving.server import one_thread
    from online_serving.server import serve as run

    log_to_stderr("info")
    one_thread()
    given = options(context)
    settings = given.connected_settings()
    serving, telemetry = settings.serving, settings.telemetry
    with contextlib.suppress(Unavailable), redis_client(settings):
        pass  # a secret that differs ends it here; while Redis does not answer it waits for it, and looks again
    if port is not None:
        serving = serving.model_copy(update={"port": port})
    config = api_config(settings.model_copy(update={"serving": serving}), given.config)
    run(config, (telemetry.host, telemetry.port if metrics_port is None else metrics_port))


def update(context: typer.Context, metrics_port: MetricsPort = None) -> None:
    """Fold the log into the bandit state until stopped.

    Example: `matchloop update --metrics-port 9101`
    """
    from feature_store.bandit_state import BanditStore
    from feature_store.membership import Membership
    from feature_store.online.server import check_server
    from feature_store.online.store import OnlineStore
    from infra.connections import event_log, redis_client
    from streaming.updater import new_health, run

    log_to_stderr("info")
    settings = options(context).connected_settings()
    log, stop, health = event_log(settings), _stop_on_signal(), new_health()
    with redis_client(settings) as client:
        for warning in check_server(client):
            logging.getLogger(__name__).warning("%s", warning)
        log.create_topics()
        _serve_metrics(settings, metrics_port, health)  # from here on the supervisor sees that it works
        state, online = BanditStore(client, settings.redis), OnlineStore(client, settings.redis)
        with Membership(client, settings.redis, settings.updater.session_seconds) as membership:
            run(log, settings.rewards, state, online, membership, settings.layout, stop, health)


def sink(context: typer.Context, metrics_port: MetricsPort = None) -> None:
    """Write the log to the Parquet lake, and the catalogue from there to Redis, until stopped.

    Small files become larger ones every lake.compact_hours. Without a schedule in the settings the reports of running
    experiments are renewed here, every experiments.report_minutes.

    Example: `matchloop sink --metrics-port 9102`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.online.store import OnlineStore
    from infra.connections import kafka_bootstrap, unchecked_redis_client
    from infra.extras import version
    from infra.upkeep import keep_compact
    from streaming.deployment_keeper import DeploymentKeeper
    from streaming.kafka import Log
    from streaming.redis_memory import RedisMemory
    from streaming.sink import new_health, run

    log_to_stderr("info")
    given = options(context)
    settings = given.connected_settings()
    bootstrap, stop, health = kafka_bootstrap(settings), _stop_on_signal(), new_health()
    Log(settings.kafka, bootstrap).create_topics()
    _serve_metrics(settings, metrics_port, health)
    every = settings.lake.compact_hours * 3600
    upkeep = threading.Thread(target=keep_compact, args=(every, given.config, stop), name="lake-upkeep")
    upkeep.start()
    reports: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if not settings.schedule.wanted and version("mlflow") is not None:
        reports = _reports(settings, given.config, stop)
    # Not a retry: while Redis is away the lake is written all the same, and the sink comes back to it.
    with reports, contextlib.closing(unchecked_redis_client(settings, retries=0)) as client:
        online = OnlineStore(client, settings.redis)
        keeper = DeploymentKeeper(settings.home, settings.redis.prefix, online, health)
        memory = RedisMemory(client)

        def beside() -> None:
            keeper.step()
            memory.step()

        try:
            run(settings.kafka, bootstrap, settings.layout, online, settings.lake, SystemClock(), stop, health, beside)
        finally:
            stop.set()
            upkeep.join()


def schedule(
    context: typer.Context,
    cron: Annotated[str | None, typer.Option(help="Cron expression in UTC; default: schedule.cron.")] = None,
    after: Annotated[
        int | None, typer.Option(min=1, help="Events of feedback after which one is due; default: schedule.after.")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run `matchloop retrain` whenever it is due, until stopped.

    One at a time: a time that passes while one runs is left out. Those that were missed while nobody kept the schedule
    are made up for once, and a retrain that was interrupted goes on. `matchloop status` says how the last one ended.
    The reports of running experiments are renewed every experiments.report_minutes.

    Example: `matchloop schedule --cron "0 */4 * * *" --after 50000`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import InvalidInput
    from infra.schedule.feedback import Feedback
    from infra.schedule.health import Health, measure
    from infra.schedule.keeper import Keeper
    from infra.schedule.notes import schedule_folder
    from infra.schedule.process import RetrainProcess

    log_to_stderr("info")
    given = options(context)
    settings, stop, health = given.connected_settings(), _stop_on_signal(), Health()
    cron, after = cron or settings.schedule.cron, after or settings.schedule.after
    if cron is None and after is None:
        raise InvalidInput("Say when a retrain is due: --cron, --after, or the settings in [schedule].")
    folder = schedule_folder(settings.home)
    folder.mkdir(parents=True, exist_ok=True)
    _serve_metrics(settings, metrics_port, health)
    keeper = Keeper(
        folder,
        Feedback(settings.layout),
        lambda: RetrainProcess(folder, given.config),
        SystemClock(),
        cron,
        after,
    )
    with _reports(settings, given.config, stop):
        while not stop.wait(_LOOK_SECONDS):
            keeper.look()
            measure(keeper.notes)
            health.step()
        keeper.stop()


def connect(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML file: the topic, and where its messages say what.")],
    metrics_port: MetricsPort = None,
) -> None:
    """Read events from a topic of JSON that somebody else writes, until stopped.

    They are taken as POST /v1/events takes them. A message that comes again with the same event id counts once, also
    after a crash; what cannot be read is a dead letter. One process a topic.

    Example: `matchloop connect shop.toml` with

        topic = "shop-events"

        [events]
        user_id = ["customer.id", "visitor"]
        item_id = "lines[].sku"
        type = "event"
        types = { "order placed" = "purchase", "page seen" = "click" }
        time = "at"
        event_id = "id"
    """
    import asyncio

    from infra.connect import Health, read_connection
    from infra.connect import connect as run

    log_to_stderr("info")
    settings = options(context).connected_settings()
    connection, stop, health = read_connection(file, settings), _stop_on_signal(), Health()
    _serve_metrics(settings, metrics_port, health)
    asyncio.run(run(settings, connection, stop, health))


@contextlib.contextmanager
def _reports(settings: "Settings", config: Path | None, stop: threading.Event) -> Iterator[None]:
    """Meanwhile the reports of running experiments are renewed."""
    from infra.upkeep import keep_reports

    every = settings.experiments.report_minutes * 60
    if not every:
        yield
        return
    renewing = threading.Thread(target=keep_reports, args=(every, config, stop), name="experiment-reports")
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()


def _serve_metrics(settings: "Settings", port: int | None, health: "Reporting") -> None:
    serve_metrics(settings.telemetry.host, settings.telemetry.port if port is None else port, health)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
