"""The whole of MatchLoop on one machine: embedded servers for those that are not given, and MatchLoop's own processes.

    with Stack(settings) as stack:
        stack.start("broker", "redis", "mlflow")
        ...
        stack.start("updater", "sink", "api")
        print(stack.endpoints.api)

Ports are chosen when a program starts. Each program is started when those it requires answer, and stopping goes the
other way round. What cannot be started leaves nothing behind.
"""

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from feature_store.contracts.errors import MatchLoopError, Unavailable
from infra import servers
from infra.programs import API, BROKER, MLFLOW, PUBLIC, REDIS, Program, programs, reachable
from infra.settings import CONFIG_VARIABLE, MLFLOW_VARIABLE, PREFIX, Settings
from infra.supervision import Supervisor
from offline_training.progress import Progress, silent

_POLL_SECONDS = 0.05
_PORT_ATTEMPTS = 3
_FAILED = ("BACKOFF", "EXITED", "FATAL", "UNKNOWN")
_LOG_LINES = 3


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
    healthy: bool
    pid: int
    port: int
    log: Path


class Stack:
    """The stack of one home directory.

    A context manager that stops it at the end. With `foreground` it also ends, in order, when the thread that started
    it does, even by SIGKILL; start it from the main thread. Without, it stays until it is stopped.
    """

    def __init__(self, settings: Settings, foreground: bool = True) -> None:
        self._settings = settings
        self._foreground = foreground
        self._programs = programs(settings)
        self._supervisor = Supervisor(settings.home / "run", settings.home / "logs")
        self._attached = False

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
        url, api = given.redis.url, ports.get(PUBLIC, ports.get(API))
        return Endpoints(
            kafka=given.kafka.bootstrap or (f"{local}:{ports[BROKER]}" if BROKER in ports else None),
            redis=url.get_secret_value() if url else f"redis://{local}:{ports[REDIS]}/0" if REDIS in ports else None,
            mlflow=given.mlflow.tracking_uri or (f"http://{local}:{ports[MLFLOW]}" if MLFLOW in ports else None),
            api=f"http://{reachable(given.serving.host)}:{api}" if api else None,
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

        Roles that the settings give to a server of yours are passed over, as are programs that run already. Raises
        Unavailable, with what the program's log says, if one does not start: then the whole stack is stopped.
        """
        wanted = [program for program in self._programs.values() if not roles or program.role in roles]
        try:
            if not self._attached:
                self._supervisor.launch(self.environment(), self._foreground)
                self._attached = True
            self._start(wanted, progress)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops everything in order, and kills what does not stop in its time. Does nothing if nothing runs."""
        if self._attached:
            self._supervisor.stop(sum(program.stop_seconds for program in self._programs.values()) + 5)
            self._attached = False
            (self._settings.home / "run" / "settings.json").unlink(missing_ok=True)

    def restart(self, name: str) -> None:
        """Stops one program and starts it again on its port. Raises Unavailable if it does not come back."""
        program = self._programs[name]
        self._supervisor.call("stopProcess", name)
        self._supervisor.call("startProcess", name, False)
        deadline = time.monotonic() + program.start_seconds
        while not self._answers(program, deadline):
            time.sleep(_POLL_SECONDS)

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
                healthy = state.pid > 0 and _problem(program, state.pid, port) is None
                log = self._supervisor.log(program.name)
                found.append(ProgramStatus(program.name, state.state, healthy, state.pid, port, log))
        return found

    def _start(self, wanted: list[Program], progress: Progress) -> None:
        running = set(self._supervisor.states())
        waiting = [program for program in wanted if program.name not in running]
        named = {program.name for program in waiting}
        for program in waiting:
            if missing := set(program.requires) - running - named:
                raise MatchLoopError(f"{program.name} needs {' and '.join(sorted(missing))}: start it first.")
        deadlines: dict[Program, float] = {}
        attempts = dict.fromkeys(waiting, 1)
        while waiting or deadlines:
            unready = {program.name for program in [*waiting, *deadlines]}
            for program in [p for p in waiting if unready.isdisjoint(p.requires)]:
                waiting.remove(program)
                self._add(program)
                deadlines[program] = time.monotonic() + program.start_seconds
            for program, deadline in list(deadlines.items()):
                try:
                    if self._answers(program, deadline):
                        del deadlines[program]
                        done = len(attempts) - len(waiting) - len(deadlines)
                        progress(done / len(attempts), f"{program.name} answers")
                except Unavailable:
                    if attempts[program] == _PORT_ATTEMPTS or not self._lost_port(program):
                        raise
                    attempts[program] += 1
                    self._supervisor.remove(program)
                    self._add(program)
            time.sleep(_POLL_SECONDS)

    def _add(self, program: Program) -> None:
        if program.role in (REDIS, MLFLOW):
            (self._settings.home / program.role).mkdir(exist_ok=True)
        if program.role == API and self._settings.serving.workers > 1 and PUBLIC not in self._supervisor.started.ports:
            self._supervisor.reserve(PUBLIC, self._free_port(self._settings.serving.port))
        self._write_settings()
        self._supervisor.add(program, self._free_port(program.preferred_port))

    def _free_port(self, preferred: int) -> int:
        return servers.free_port(preferred, frozenset(self._supervisor.started.ports.values()))

    def _answers(self, program: Program, deadline: float) -> bool:
        """Whether a program that was started works by now. Raises Unavailable if it never will."""
        state = self._supervisor.states()[program.name]
        problem: str | None = f"it ended ({state.state})"
        if state.pid:
            problem = _problem(program, state.pid, self._supervisor.started.ports[program.name])
            if problem is None:
                return True
        if state.state in _FAILED or time.monotonic() > deadline:
            log = self._supervisor.log(program.name)
            raise Unavailable(f"{program.name} did not start: {problem}. {_last_words(log)}Its log: {log}")
        return False

    def _lost_port(self, program: Program) -> bool:
        """Whether somebody else has the port that was free when it was chosen."""
        port = self._supervisor.started.ports[program.name]
        return servers.free_port(port) != port

    def _write_settings(self) -> None:
        path = self._settings.home / "run" / "settings.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.settings.revealed(), file)

    def environment(self) -> dict[str, str]:
        """What processes of this stack see: settings come to them in one file, whatever set them here."""
        ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        ours.pop(MLFLOW_VARIABLE, None)
        return {**ours, CONFIG_VARIABLE: str(self._settings.home / "run" / "settings.json"), "PYTHONUNBUFFERED": "1"}


def _problem(program: Program, pid: int, port: int) -> str | None:
    """What keeps a running program from being healthy."""
    try:
        process = psutil.Process(pid)
        listening = any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in [process, *process.children(recursive=True)]
            for connection in member.net_connections("inet")
        )
        if not listening:  # somebody else may: that one's answers would prove nothing
            return f"it does not listen on port {port}"
        program.answers(port)
    except (OSError, Unavailable, psutil.Error) as error:
        return str(error)
    return None


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in lines[-_LOG_LINES:]) + "\n" if lines else ""
