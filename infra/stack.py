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
import re
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from feature_store.contracts.errors import MatchLoopError, Unavailable
from infra import servers
from infra.host import host_name, run_name
from infra.programs import API, BROKER, MLFLOW, PUBLIC, REDIS, Program, programs, reachable
from infra.settings import CONFIG_VARIABLE, MLFLOW_VARIABLE, PREFIX, Settings
from infra.supervision import Supervisor
from offline_training.progress import Progress, silent

_POLL_SECONDS = 0.05
_PORT_ATTEMPTS = 3
_ENDED = ("EXITED", "FATAL", "STOPPED", "UNKNOWN")
_FAILED = ("BACKOFF", *_ENDED)
_LOG_LINES = 3
_LOG_CHARACTERS = 400  # of a line; what follows is a traceback
_ERROR = re.compile(r"^\S+ (ERROR|CRITICAL) |^matchloop: ")


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

    @property
    def healthy(self) -> bool:
        """Whether it answers, and says that it works."""
        return self.problem is None


@dataclass
class _Start:
    """One program on its way."""

    deadline: float  # monotonic
    logged: int  # bytes of its log that were there before
    pid: int = 0
    attempts: int = 1


class Stack:
    """The stack of one home directory.

    A context manager that stops it at the end. With `foreground` it also ends, in order, when the thread that started
    it does, even by SIGKILL; start it from the main thread. Without, it stays until it is stopped.
    """

    def __init__(self, settings: Settings, foreground: bool = True) -> None:
        self._settings = settings
        self._foreground = foreground
        self._programs = programs(settings)
        host = host_name(settings.host)
        self._run = settings.home / "run" / run_name(host)
        self._supervisor = Supervisor(self._run, settings.home / "logs" / host)
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

        Roles that the settings give to a server of yours are passed over. Programs that ran and have ended are started
        again; the embedded broker then has an empty log, and whoever follows it is started anew. A release may take
        long to load: that is waited for while the process lives. Raises Unavailable, with the reason, if one does not
        start or does not work: what this call has added is then removed, and the rest is left as it was.
        """
        wanted = [program for program in self._programs.values() if not roles or program.role in roles]
        launched, before = not self._attached, None
        try:
            if launched:
                self._supervisor.launch(self.environment(), self._foreground)
                self._attached = True
            before = set(self._supervisor.states())
            self._start(wanted, progress)
        except BaseException:
            if launched:
                self.stop()
            elif before is not None:
                self._remove(before)
            raise

    def stop(self) -> None:
        """Stops everything in order, and kills what does not stop in its time. Does nothing if nothing runs."""
        if self._attached:
            self._supervisor.stop(sum(program.stop_seconds for program in self._programs.values()) + 5)
            self._attached = False
            (self._run / "settings.json").unlink(missing_ok=True)

    def restart(self, name: str) -> None:
        """Stops one program and starts it again on its port. Raises Unavailable if it does not come back."""
        program = self._programs[name]
        self._supervisor.call("stopProcess", name)
        self._supervisor.call("startProcess", name, False)
        start = self._begin(program)
        while not self._answers(program, start, lambda _: None):
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
                problem = self._problem(program, state.pid) if state.pid else f"It has ended ({state.state})."
                log = self._supervisor.log(program.name)
                found.append(ProgramStatus(program.name, state.state, problem, state.pid, port, log))
        return found

    def _start(self, wanted: list[Program], progress: Progress) -> None:
        states = self._supervisor.states()
        waiting = [p for p in wanted if p.name not in states or states[p.name].state in _ENDED]
        if any(program.role == BROKER and program.name in states for program in waiting):
            waiting = self._with_followers_stopped(waiting)
        named = {program.name for program in waiting}
        for program in waiting:
            if missing := set(program.requires) - states.keys() - named:
                raise MatchLoopError(f"{program.name} needs {' and '.join(sorted(missing))}: start it first.")
        starts = {program: self._begin(program) for program in wanted if program.name not in named}
        count = len(waiting)
        while waiting or starts:
            unready = {program.name for program in [*waiting, *starts]}
            for program in [p for p in waiting if unready.isdisjoint(p.requires)]:
                waiting.remove(program)
                starts[program] = self._begin(program)
                self._launch(program)
            for program, start in list(starts.items()):

                def say(message: str) -> None:
                    done = (count - len(waiting) - len(named & {p.name for p in starts})) / max(count, 1)
                    progress(done, message)

                if self._answers(program, start, say):
                    del starts[program]
                    if program.name in named:
                        say(f"{program.name} answers")
            time.sleep(_POLL_SECONDS)

    def _with_followers_stopped(self, waiting: list[Program]) -> list[Program]:
        """With whoever follows the broker's log: that has gone with the broker, and a new one is another log."""
        states = self._supervisor.states()
        followers = [p for p in self._programs.values() if BROKER in p.requires and p.name in states]
        for program in reversed(followers):
            with contextlib.suppress(xmlrpc.client.Fault):  # not running
                self._supervisor.call("stopProcess", program.name)
        return [p for p in self._programs.values() if p in waiting or p in followers]

    def _begin(self, program: Program) -> _Start:
        log = self._supervisor.log(program.name)
        return _Start(time.monotonic() + program.start_seconds, log.stat().st_size if log.exists() else 0)

    def _launch(self, program: Program) -> None:
        if program.name in self._supervisor.states():
            self._supervisor.call("startProcess", program.name, False)
        else:
            self._add(program)

    def _add(self, program: Program) -> None:
        if program.data is not None:
            program.data.mkdir(exist_ok=True)
        if program.role == API and not self._has_api():
            serving = self._settings.serving
            self._supervisor.reserve(PUBLIC, self._free_port(serving.port, reachable(serving.host)))
        self._write_settings()
        self._supervisor.add(program, self._free_port(program.preferred_port, reachable(program.host)))

    def _has_api(self) -> bool:
        return any(self._programs[name].role == API for name in self._supervisor.states())

    def _free_port(self, preferred: int, host: str) -> int:
        return servers.free_port(preferred, frozenset(self._supervisor.started.ports.values()), host)

    def _remove(self, kept: set[str]) -> None:
        """Stops and forgets all programs but these."""
        with contextlib.suppress(Unavailable, xmlrpc.client.Fault):  # somebody stops the whole stack
            for name in reversed([name for name in self._programs if name in self._supervisor.states().keys() - kept]):
                self._supervisor.remove(self._programs[name])

    def _answers(self, program: Program, start: _Start, say: Callable[[str], object]) -> bool:
        """Whether a program that was started works by now. Raises Unavailable, with the reason, if it never will."""
        state = self._supervisor.states()[program.name]
        problem: str | None = f"it ended ({state.state})"
        start.pid = start.pid or state.pid
        lives = state.state not in _FAILED and state.pid == start.pid
        if lives and state.pid:
            try:
                self._check(program, state.pid)
            except servers.Loading as error:
                say(f"{program.name}: {error}")
                start.deadline = time.monotonic() + program.start_seconds
                return False
            except servers.Refused as error:
                raise self._failure(program, start, str(error)) from None
            except (OSError, Unavailable, psutil.Error) as error:
                problem = str(error)
            else:
                return True
        if lives and time.monotonic() < start.deadline:
            return False
        if start.attempts < _PORT_ATTEMPTS and self._lost_port(program):
            self._supervisor.remove(program)
            again = self._begin(program)
            start.deadline, start.logged, start.pid = again.deadline, again.logged, 0
            start.attempts += 1
            self._add(program)
            return False
        raise self._failure(program, start, str(problem))

    def _failure(self, program: Program, start: _Start, problem: str) -> Unavailable:
        log = self._supervisor.log(program.name)
        words = _last_words(log, start.logged)
        return Unavailable(f"{program.name} did not start: {problem.rstrip('.')}. {words}Its log: {log}")

    def _problem(self, program: Program, pid: int) -> str | None:
        """What keeps a running program from being healthy."""
        try:
            self._check(program, pid)
        except (OSError, Unavailable, psutil.Error) as error:
            return str(error)
        return None

    def _check(self, program: Program, pid: int) -> None:
        """Raises OSError, Unavailable or psutil.Error unless the program works."""
        ports = self._supervisor.started.ports
        port = ports[program.name]
        if port not in _listening(pid):  # somebody else may: that one's answers would prove nothing
            raise Unavailable(f"it does not listen on port {port}")
        program.answers(port)
        if program.role == API and ports[PUBLIC] not in _listening(pid):
            raise Unavailable(f"it does not listen on port {ports[PUBLIC]}")

    def _lost_port(self, program: Program) -> bool:
        """Whether somebody else has a port that was free when it was chosen for the program."""
        ports, state = self._supervisor.started.ports, self._supervisor.states()[program.name]
        try:
            ours = _listening(state.pid) if state.pid else set()
        except psutil.Error:
            ours = set()
        chosen = {ports[program.name]: program.host}
        if program.role == API and not any(
            other.role == API and other is not program and other.name in ports for other in self._programs.values()
        ):
            chosen[ports[PUBLIC]] = self._settings.serving.host
        return any(
            port not in ours and servers.free_port(port, host=reachable(host)) != port for port, host in chosen.items()
        )

    def _write_settings(self) -> None:
        path = self._run / "settings.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.settings.revealed(), file)

    def environment(self) -> dict[str, str]:
        """What processes of this stack see: settings come to them in one file, whatever set them here."""
        ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        ours.pop(MLFLOW_VARIABLE, None)
        return {**ours, CONFIG_VARIABLE: str(self._run / "settings.json"), "PYTHONUNBUFFERED": "1"}


def _listening(pid: int) -> set[int]:
    """The ports that a process and its children listen on."""
    process = psutil.Process(pid)
    return {
        connection.laddr.port
        for member in [process, *process.children(recursive=True)]
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def _last_words(log: Path, start: int) -> str:
    """What the log says from the byte on: its last errors, or else its last lines."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    said = [line for line in lines if _ERROR.search(line)] or lines
    return "".join(f"\n    {line[:_LOG_CHARACTERS]}" for line in said[-_LOG_LINES:]) + "\n" if said else ""
