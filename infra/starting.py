"""Starts programs under the supervisor, in order, and waits until they work.

A program that needs long is waited for while it says that it is at work. One that ends, or says that it cannot work, is
given up at once, with its reason; one that lost its port to somebody else gets another.
"""

import contextlib
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from feature_store.contracts.errors import MatchLoopError, Unavailable
from infra import health, servers
from infra.programs import API, BROKER, PUBLIC, Program
from infra.settings import Settings
from infra.supervision import Supervisor
from offline_training.progress import Progress

_POLL_SECONDS = 0.05
_PORT_ATTEMPTS = 3
_ENDED = ("EXITED", "FATAL", "STOPPED", "UNKNOWN")
_FAILED = ("BACKOFF", *_ENDED)


@dataclass
class _Start:
    """One program on its way."""

    deadline: float  # monotonic
    logged: int = 0  # bytes of its log that were there before it was launched
    launched: bool = False  # by this call: it may have run before
    pid: int = 0
    attempts: int = 1


class Starter:
    """Starts the programs of one stack."""

    def __init__(
        self,
        settings: Settings,
        programs: Mapping[str, Program],
        supervisor: Supervisor,
        write_settings: Callable[[], object],
    ) -> None:
        """write_settings: writes down what a program that is started next reads."""
        self._settings = settings
        self._programs = programs
        self._supervisor = supervisor
        self._write_settings = write_settings

    def start(self, wanted: list[Program], progress: Progress) -> None:
        """Starts those that do not run, and returns when all of them work. Raises Unavailable, with the reason, if one
        does not."""
        states = self._supervisor.states()
        waiting = [p for p in wanted if p.name not in states or states[p.name].state in _ENDED]
        if any(program.role == BROKER and program.name in states for program in waiting):
            waiting = self._with_followers_stopped(waiting)
        named = {program.name for program in waiting}
        for program in waiting:
            if missing := set(program.requires) - states.keys() - named:
                raise MatchLoopError(f"{program.name} needs {' and '.join(sorted(missing))}: start it first.")
        starts = {p: _Start(time.monotonic() + p.start_seconds) for p in wanted if p.name not in named}
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

    def restart(self, program: Program) -> None:
        """Stops a program and starts it again on its port. Raises Unavailable if it does not come back."""
        self._supervisor.call("stopProcess", program.name)
        start = self._begin(program)
        self._supervisor.call("startProcess", program.name, False)
        while not self._answers(program, start, lambda _: None):
            time.sleep(_POLL_SECONDS)

    def _begin(self, program: Program) -> _Start:
        log = self._supervisor.log(program.name)
        return _Start(time.monotonic() + program.start_seconds, log.stat().st_size if log.exists() else 0, True)

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
            self._supervisor.reserve(PUBLIC, self._free_port(serving.port, serving.host))
        self._write_settings()
        self._supervisor.add(program, self._free_port(program.preferred_port, program.host))

    def _has_api(self) -> bool:
        return any(self._programs[name].role == API for name in self._supervisor.states())

    def _free_port(self, preferred: int, host: str) -> int:
        return servers.free_port(preferred, frozenset(self._supervisor.started.ports.values()), host)

    def remove_all_but(self, kept: set[str]) -> None:
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
                health.check(program, state.pid, self._supervisor.started.ports)
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
        words = health.last_words(log, start.logged)
        what = "did not start" if start.launched else "does not work"
        return Unavailable(f"{program.name} {what}: {problem.rstrip('.')}. {words}Its log: {log}")

    def _lost_port(self, program: Program) -> bool:
        """Whether somebody else has a port that was free when it was chosen for the program."""
        ports, state = self._supervisor.started.ports, self._supervisor.states()[program.name]
        try:
            ours = health.listening(state.pid) if state.pid else set()
        except psutil.Error:
            ours = set()
        chosen = {ports[program.name]: program.host}
        if program.role == API and not any(
            other.role == API and other is not program and other.name in ports for other in self._programs.values()
        ):
            chosen[ports[PUBLIC]] = self._settings.serving.host
        return any(port not in ours and servers.free_port(port, host=host) != port for port, host in chosen.items())
