"""The programs of the stack: what each one needs, how it is run, how it shows that it works, how long it may take."""

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra import servers
from infra.schedule.notes import schedule_folder
from infra.settings import Settings

BROKER, REDIS, MLFLOW, UPDATER, SINK, API = "broker", "redis", "mlflow", "updater", "sink", "api"
SCHEDULE = "schedule"
ORDER = (
    BROKER,
    REDIS,
    MLFLOW,
    UPDATER,
    SINK,
    API,
    SCHEDULE,
)  # roles, as they are started; stopping goes the other way round
PUBLIC = "public"  # the port of the API, which several processes may share

_ANY_ADDRESS = {"0.0.0.0": servers.LOOPBACK, "::": "::1"}  # noqa: S104 - addresses that cannot be connected to


@dataclass(frozen=True, eq=False)
class Program:
    """One supervised process. `command` and `answers` take the port that was chosen for it: a server's own, or that of
    a process's metrics."""

    role: str  # one of ORDER
    command: Callable[[int], list[str]]
    answers: Callable[[int], None]  # as servers.HealthCheck
    preferred_port: int = 0
    host: str = servers.LOOPBACK  # of the port
    requires: tuple[str, ...] = ()
    start_seconds: float = 180.0  # to answer, or to say that it loads; one that ends is given up at once
    stop_seconds: int = 10  # before it is killed
    restarts: bool = True
    forks: bool = False  # has children that must end with it
    data: Path | None = None  # a directory that must not have two such programs, on whatever hosts
    environment: dict[str, str] = field(default_factory=dict)
    number: int = 1  # among the programs of its role

    @property
    def name(self) -> str:
        """What the supervisor, the log and the status call it."""
        return self.role if self.number == 1 else f"{self.role}-{self.number}"


def programs(settings: Settings) -> dict[str, Program]:
    """The programs that the settings ask for, by name, in the order of starting, your own servers left out."""
    chosen = []
    if settings.kafka.bootstrap is None:
        chosen.append(_broker())
    if settings.redis.url is None:
        chosen.append(_redis(settings))
    if settings.mlflow.tracking_uri is None:
        chosen.append(_mlflow(settings))
    present = {program.name for program in chosen}
    stores = tuple(name for name in (BROKER, REDIS) if name in present)
    updaters, workers = settings.updater.processes, settings.serving.workers
    processes = [replace(_follower(settings, UPDATER, "update", stores), number=n + 1) for n in range(updaters)]
    processes.append(_follower(settings, SINK, "sink", stores))
    processes += [replace(_api(settings, stores), number=n + 1) for n in range(workers)]
    if settings.schedule.wanted:
        processes.append(_schedule(settings, tuple(program.name for program in chosen)))
    if first := settings.telemetry.port:
        processes = [replace(program, preferred_port=first + n) for n, program in enumerate(processes)]
    return {program.name: program for program in [*chosen, *processes]}


def reachable(host: str) -> str:
    """The address to connect to, for an address that is listened on."""
    return _ANY_ADDRESS.get(host, host)


def _broker() -> Program:
    return Program(
        role=BROKER,
        command=servers.broker_command,
        answers=functools.partial(servers.kafka_answers, servers.LOOPBACK),
        preferred_port=19092,
        stop_seconds=1,  # it holds nothing that an orderly end would save, and waits five seconds for its clients
        restarts=False,  # it would come back empty: that is for a person to see
        environment={"RUST_LOG": "error"},
    )


def _redis(settings: Settings) -> Program:
    directory = settings.home / "redis"
    return Program(
        role=REDIS,
        command=lambda port: servers.redis_command(port, directory, settings.redis.fsync),
        answers=functools.partial(servers.redis_answers, servers.LOOPBACK),
        preferred_port=16379,
        data=directory,
    )


def _mlflow(settings: Settings) -> Program:
    directory = settings.home / "mlflow"
    return Program(
        role=MLFLOW,
        command=lambda port: servers.mlflow_command(port, directory),
        answers=lambda port: servers.http_answers(servers.LOOPBACK, port, "/health"),
        preferred_port=15000,
        start_seconds=300,
        forks=True,
        data=directory,
        environment=servers.MLFLOW_ENVIRONMENT,
    )


def _follower(settings: Settings, role: str, command: str, requires: tuple[str, ...]) -> Program:
    host = settings.telemetry.host
    return Program(
        role=role,
        command=lambda port: _process(command, port),
        answers=lambda port: servers.http_answers(reachable(host), port, "/healthz"),
        host=host,
        requires=requires,
        stop_seconds=15,
    )


def _api(settings: Settings, requires: tuple[str, ...]) -> Program:
    host = settings.telemetry.host
    return Program(
        role=API,
        command=lambda port: _process("serve", port),
        answers=lambda port: servers.api_answers(reachable(host), port),
        host=host,
        requires=requires,
        stop_seconds=15 + math.ceil(settings.serving.drain_seconds),
        environment={"OMP_NUM_THREADS": "1"},  # threads of the numeric libraries only get in each other's way here
    )


def _schedule(settings: Settings, requires: tuple[str, ...]) -> Program:
    host = settings.telemetry.host
    return Program(
        role=SCHEDULE,
        command=lambda port: _process("schedule", port),
        answers=lambda port: servers.http_answers(reachable(host), port, "/healthz"),
        host=host,
        requires=requires,
        stop_seconds=20,  # for a retrain to be interrupted
        forks=True,
        data=schedule_folder(settings.home),
    )


def _process(command: str, port: int) -> list[str]:
    return [sys.executable, "-m", "infra.cli", command, "--metrics-port", str(port)]
