"""The whole of MatchLoop on one machine: embedded servers for those that are not given, and MatchLoop's own processes.

    with Stack(settings) as stack:
        stack.start("broker", "redis", "mlflow")
        ...
        stack.start("updater", "sink", "api")
        print(stack.endpoints.api)

Ports are chosen when a program starts. Each program is started when those it requires answer, and stopping goes the
other way round. What cannot be started leaves nothing behind, and what ran before goes on.

A home may be shared by hosts: each has its own stack there, under run/<host>-<boot> and logs/<host>.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from feature_store.contracts.errors import Unavailable
from infra import health, servers
from infra.host import host_name, run_name
from infra.programs import API, BROKER, MLFLOW, PUBLIC, REDIS, SINK, UPDATER, programs, reachable
from infra.settings import CONFIG_VARIABLE, MLFLOW_VARIABLE, PREFIX, Settings
from infra.starting import Starter
from infra.supervision import Supervisor
from offline_training.progress import Progress, silent


class Endpoints(NamedTuple):
    """Where the parts are. None: not started, and none of yours is set."""

    kafka: str | None  # host:port
    redis: str | None  # URL
    mlflow: str | None  # URL
    api: str | None  # URL


class ProgramStatus(NamedTuple):
    """One program as it is now."""

    name: str
    state: str
    problem: str | None  # why it is not healthy
    pid: int
    port: int  # a server's own, or that of a process's metrics
    log: Path
    quarantined: list[str]  # what an updater or a sink has set aside, and why; the rest goes on

    @property
    def healthy(self) -> bool:
        """Whether it answers, and says that it works."""
        return self.problem is None


class Stack:
    """The stack of one home directory.

    A context manager that stops it at the end. With `foreground` it also ends, in order, when the thread that started
    it does, even by SIGKILL; start it from the main thread. Without, it stays until it is stopped.
    """

    def __init__(self, settings: Settings, foreground: bool = True) -> None:
        self._settings = settings
        self._foreground = foreground
        self._programs = programs(settings)
        self._host = host_name(settings.host)
        self._run = settings.home / "run" / run_name(self._host)
        self._logs = settings.home / "logs" / self._host
        self._supervisor = Supervisor(self._run, self._logs)
        self._starter = Starter(settings, self._programs, self._supervisor, self._write_settings)
        self._attached = False

    @classmethod
    @contextlib.contextmanager
    def background(cls, settings: Settings, waiting: Callable[[], object]) -> Iterator["Stack"]:
        """The stack of the settings' home to start programs in, running or not, which stays when this ends.

        One at a time: calls `waiting` while somebody else does so."""
        stack = cls(settings, foreground=False)
        with stack._supervisor.turn(waiting):
            stack._attached = stack.running
            yield stack

    @classmethod
    def attach(cls, settings: Settings) -> "Stack":
        """The stack that runs in the settings' home. Raises Unavailable if none does."""
        stack = cls(settings)
        if not stack.running:
            raise Unavailable(f"No stack is running in {settings.home}. Start one with `matchloop up`.")
        stack._attached = True
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether a stack runs in this home, started by whomever."""
        return self._supervisor.running

    @property
    def endpoints(self) -> Endpoints:
        """Where the parts are now: yours where the settings name them, embedded ones otherwise."""
        ports = self._supervisor.started.ports if self.running else {}
        given, local = self._settings, servers.LOOPBACK
        host = reachable(given.serving.host)
        url, api = given.redis.url, ports.get(PUBLIC, ports.get(API))
        return Endpoints(
            kafka=given.kafka.bootstrap or (f"{local}:{ports[BROKER]}" if BROKER in ports else None),
            redis=url.get_secret_value() if url else f"redis://{local}:{ports[REDIS]}/0" if REDIS in ports else None,
            mlflow=given.mlflow.tracking_uri or (f"http://{local}:{ports[MLFLOW]}" if MLFLOW in ports else None),
            api=f"http://{f'[{host}]' if ':' in host else host}:{api}" if api else None,
        )

    @property
    def settings(self) -> Settings:
        """The settings with the addresses that were chosen filled in: for jobs that work beside the stack."""
        endpoints = self.endpoints
        values = self._settings.revealed()
        values["kafka"]["bootstrap"] = endpoints.kafka
        values["redis"]["url"] = endpoints.redis
        values["mlflow"]["tracking_uri"] = endpoints.mlflow
        if self.running:
            values["serving"]["port"] = self._supervisor.started.ports.get(PUBLIC, self._settings.serving.port)
        return Settings(**values)

    def start(self, *roles: str, progress: Progress = silent) -> None:
        """Starts the programs of these roles (all if none is named) and returns when each one answers.

        Roles that the settings give to a server of yours are passed over. Programs that ran and have ended are started
        again; the embedded broker then has an empty log, and whoever follows it is started anew. A release may take
        long to load: that is waited for while the process lives. Raises Unavailable, with the reason, if one does not
        start or does not work: what this call has added is then removed, and the rest is left as it was.
        """
        wanted = [program for program in self._programs.values() if not roles or program.role in roles]
        launched, before = not self._attached, None
        try:
            if launched:
                self._forget_earlier_boots()
                self._supervisor.launch(self.environment(), self._foreground)
                self._attached = True
            before = set(self._supervisor.states())
            self._starter.start(wanted, progress)
        except BaseException:
            if launched:
                self.stop()
            elif before is not None:
                self._starter.remove_all_but(before)
            raise

    def stop(self) -> None:
        """Stops everything in order, and kills what does not stop in its time. Does nothing if nothing runs."""
        if self._attached:
            self._supervisor.stop(sum(program.stop_seconds for program in self._programs.values()) + 5)
            self._attached = False
            (self._run / "settings.json").unlink(missing_ok=True)

    def restart(self, name: str) -> None:
        """Stops one program and starts it again on its port. Raises Unavailable if it does not come back."""
        self._starter.restart(self._programs[name])

    def status(self) -> list[ProgramStatus]:
        """Every program that was started, asked whether it works."""
        if not self.running:
            return []
        ports = self._supervisor.started.ports
        states = self._supervisor.states()
        found = []
        for program in self._programs.values():
            if program.name in states and program.name in ports:
                state, port = states[program.name], ports[program.name]
                problem = health.problem(program, state.pid, ports) if state.pid else f"It has ended ({state.state})."
                log = self._supervisor.log(program.name)
                follows_log = state.pid and program.role in (UPDATER, SINK)
                aside = servers.quarantined(reachable(program.host), port) if follows_log else []
                found.append(ProgramStatus(program.name, state.state, problem, state.pid, port, log, aside))
        return found

    def _forget_earlier_boots(self) -> None:
        """Removes what stacks of this host have left that its last boot ended: secrets are in it."""
        for run in self._run.parent.glob(f"{self._host}-????????"):
            if run != self._run and not Supervisor(run, self._logs).running:
                shutil.rmtree(run, ignore_errors=True)

    def _write_settings(self) -> None:
        path = self._run / "settings.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.settings.revealed(), file)

    def environment(self) -> dict[str, str]:
        """What processes of this stack see: settings come to them in one file, whatever set them here."""
        ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        ours.pop(MLFLOW_VARIABLE, None)
        return {**ours, CONFIG_VARIABLE: str(self._run / "settings.json"), "PYTHONUNBUFFERED": "1"}
