"""supervisord in a directory of its own: launched, spoken to over a socket that only its owner can open, and ended.

The supervisor holds an advisory lock on `<run>/lock` for as long as it lives, however it dies: the lock tells whether
one is running. Its programs are leashed to it (infra/leash.py): none survives it.
"""

import contextlib
import fcntl
import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from feature_store.contracts.errors import MatchLoopError, Unavailable
from infra.leash import leashed
from infra.programs import ORDER, Program

_LAUNCH_SECONDS = 20.0
_PROBE_SECONDS = 0.5
_POLL_SECONDS = 0.02
_LOG_BYTES = "20MB"


class Started(msgspec.Struct):
    """What `<run>/stack.json` says: where the supervisor is and which ports were chosen."""

    pid: int
    created: float  # when that process started, seconds since the epoch: another one may have the pid by now
    directory: str  # of its socket and configuration; short, because a socket's path may not be long
    ports: dict[str, int]


class ProgramState(NamedTuple):
    """What the supervisor knows of one program."""

    name: str
    state: str  # supervisord's words: STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, STOPPED
    pid: int  # 0 when not running
    since: int  # seconds since the epoch


class Supervisor:
    """The supervisor of one run directory."""

    def __init__(self, run: Path, logs: Path) -> None:
        self._run = run
        self._logs = logs
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether a supervisor lives in this run directory, whoever launched it."""
        try:
            with self._lock(fcntl.LOCK_SH):
                return False
        except BlockingIOError:
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    @property
    def started(self) -> Started:
        """What was written about the running supervisor. Raises Unavailable if nothing readable was."""
        try:
            return msgspec.json.decode((self._run / "stack.json").read_bytes(), type=Started)
        except (OSError, msgspec.MsgspecError) as error:
            raise Unavailable(
                f"{self._run / 'stack.json'} cannot be read ({error}): the stack is just starting."
            ) from None

    def launch(self, environment: dict[str, str], foreground: bool) -> None:
        """Starts a supervisor without programs. In the foreground it ends (in order) when the calling thread does.

        Raises MatchLoopError if there is one already.
        """
        _needs_supervisord()
        self._make_directories()
        deadline = time.monotonic() + _PROBE_SECONDS
        while True:
            try:
                with self._lock(fcntl.LOCK_EX) as lock:
                    self._clean()
                    self._process = self._spawn(lock, environment, foreground)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:  # not just somebody who looks whether we run
                    raise MatchLoopError(
                        f"A stack is already running here ({self._run}). Stop it with `matchloop down`, "
                        "or set MATCHLOOP_HOME to another directory."
                    ) from None
            time.sleep(_POLL_SECONDS)
        self._await_answer(self._process)

    @contextlib.contextmanager
    def turn(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Has only one at a time at work on this run directory. Calls `waiting` while it is somebody else's turn."""
        _needs_supervisord()
        self._make_directories()
        descriptor = os.open(self._run / "turn", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def add(self, program: Program, port: int) -> None:
        """Starts a program on the port."""
        started = self.started
        section = _program(program, port, started)
        _file(started, program).write_text(section)
        self._write(msgspec.structs.replace(started, ports={**started.ports, program.name: port}))
        self.call("reloadConfig")
        self.call("addProcessGroup", program.name)

    def reserve(self, name: str, port: int) -> None:
        """Notes a port that no program has to itself."""
        started = self.started
        self._write(msgspec.structs.replace(started, ports={**started.ports, name: port}))

    def remove(self, program: Program) -> None:
        """Stops a program and forgets it."""
        started = self.started
        with contextlib.suppress(xmlrpc.client.Fault):  # not running
            self.call("stopProcess", program.name)
        self.call("removeProcessGroup", program.name)
        _file(started, program).unlink()
        ports = {name: port for name, port in started.ports.items() if name != program.name}
        self._write(msgspec.structs.replace(started, ports=ports))

    def states(self) -> dict[str, ProgramState]:
        """What every program that was added is doing."""
        return {
            info["name"]: ProgramState(info["name"], info["statename"], info["pid"], info["start"])
            for info in self.call("getAllProcessInfo")
        }

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls supervisord's XML-RPC interface. Raises Unavailable if it does not answer."""
        from supervisor.xmlrpc import Faults, SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{self.started.directory}/socket")
        with contextlib.closing(transport):
            proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"The supervisor in {self._run} does not answer: {error}.") from None
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == Faults.SHUTDOWN_STATE:
                    raise Unavailable("The stack is being stopped. Try again when that has ended.") from None
                raise

    def stop(self, seconds: float) -> None:
        """Stops every program, the last started first, and the supervisor; what hangs is killed after `seconds`."""
        if self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor = self._supervisor()
                supervisor.send_signal(signal.SIGTERM)
                if not self._ended(seconds):
                    supervisor.kill()  # and with it, by their leashes, all programs
                    self._ended(seconds)
        if self._process is not None:
            self._process.wait()
            self._process = None
        with contextlib.suppress(FileNotFoundError), self._lock(fcntl.LOCK_EX):
            self._clean()

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._logs / f"{name}.log"

    def _supervisor(self) -> psutil.Process:
        """The process that was started. Raises NoSuchProcess if its pid is free, or somebody else's by now."""
        process = psutil.Process(self.started.pid)
        if process.create_time() != self.started.created:
            raise psutil.NoSuchProcess(process.pid)
        return process

    def _spawn(self, lock: int, environment: dict[str, str], foreground: bool) -> subprocess.Popen[bytes]:
        directory = Path(tempfile.mkdtemp(prefix="matchloop-"))
        (directory / "programs").mkdir()
        (directory / "logs").symlink_to(self._logs)  # supervisord reads paths as patterns; this one has none in it
        configuration = directory / "supervisord.conf"
        configuration.write_text(_configuration(directory))
        command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(configuration)]
        if foreground:
            command = leashed(command, os.getpid(), signal.SIGTERM)
        with self.log("supervisord").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is for us: we stop the programs in order
                pass_fds=(lock,),
            )
        self._write(Started(process.pid, psutil.Process(process.pid).create_time(), str(directory), {}))
        return process

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _LAUNCH_SECONDS
        while True:
            try:
                self.call("getState")
                return
            except Unavailable:
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop(0)
                    raise Unavailable(f"supervisord did not start. Its log: {self.log('supervisord')}") from None
            time.sleep(_POLL_SECONDS)

    def _make_directories(self) -> None:
        for directory in (self._run, self._logs):
            directory.mkdir(parents=True, exist_ok=True)
        self._run.chmod(0o700)

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[int]:
        """Takes the lock at once or raises BlockingIOError. A process that inherits it goes on holding it."""
        descriptor = os.open(self._run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            yield descriptor
        finally:
            os.close(descriptor)

    def _ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            with contextlib.suppress(Unavailable, xmlrpc.client.Error):
                self.call("getState")  # wakes it up: left alone it looks once a second whether a program has ended
            time.sleep(_POLL_SECONDS)
        return True

    def _clean(self) -> None:
        """Removes what a supervisor that is gone has left."""
        with contextlib.suppress(Unavailable):
            shutil.rmtree(self.started.directory, ignore_errors=True)
        (self._run / "stack.json").unlink(missing_ok=True)

    def _write(self, started: Started) -> None:
        draft = self._run / "stack.json.new"
        draft.write_bytes(msgspec.json.encode(started))
        draft.rename(self._run / "stack.json")


def _file(started: Started, program: Program) -> Path:
    return Path(started.directory) / "programs" / f"{program.name}.conf"


def _configuration(directory: Path) -> str:
    factory = {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"}
    sections = [
        _section(
            "supervisord",
            logfile=directory / "logs" / "supervisord.log",
            logfile_maxbytes=_LOG_BYTES,
            logfile_backups=1,
            pidfile=directory / "pid",
            nodaemon="true",
            silent="true",
            nocleanup="true",
        ),
        _section("unix_http_server", file=directory / "socket", chmod="0700"),
        _section("rpcinterface:supervisor", **factory),
        _section("include", files="programs/*.conf"),
    ]
    return "".join(sections)


def _program(program: Program, port: int, started: Started) -> str:
    sent = signal.SIGTERM if program.forks else signal.SIGKILL  # a group's leash ends the group, and then itself
    lock = program.data / ".lock" if program.data else None
    command = leashed(program.command(port), started.pid, sent, group=program.forks, lock=lock)
    return _section(
        f"program:{program.name}",
        command=shlex.join(command),
        environment=",".join(f'{name}="{value}"' for name, value in program.environment.items()),
        priority=ORDER.index(program.role),
        autorestart="true" if program.restarts else "false",
        startretries=1_000,
        stopwaitsecs=program.stop_seconds,
        killasgroup="true",
        stdout_logfile=Path(started.directory) / "logs" / f"{program.name}.log",
        stdout_logfile_maxbytes=_LOG_BYTES,
        stdout_logfile_backups=1,
        redirect_stderr="true",
    )


def _section(title: str, **options: object) -> str:
    lines = [f"[{title}]"]
    for name, value in options.items():
        text = str(value)
        if "\n" in text or " ;" in text or " #" in text:  # would begin a comment, and there is no quoting it
            raise MatchLoopError(f"supervisord cannot be given {text!r}. Use directories without ' #' and ' ;'.")
        lines.append(f"{name}={text.replace('%', '%%')}")
    return "\n".join(lines) + "\n\n"


def _needs_supervisord() -> None:
    """Raises ModuleNotFoundError without the extra `stack`, before anything is left behind."""
    import supervisor  # noqa: F401
