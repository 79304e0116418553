"""The stack on real servers: starts, heals, stops, and leaves nothing behind, however it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from feature_store.contracts.errors import MatchLoopError, Unavailable
from feature_store.settings import RedisSettings
from infra import servers
from infra.host import host_name, run_name
from infra.leash import leashed
from infra.settings import Settings
from infra.stack import Stack

SERVERS = ("broker", "redis")
_MARK = "TEST_STACK_MARK"  # not MATCHLOOP_*: the stack gives its processes no such variables
_PAUSE = threading.Event()


def until(condition: Callable[[], bool], seconds: float = 150.0) -> None:
    """Returns when the condition holds; fails the test if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        _PAUSE.wait(0.02)


def started_by(mark: str) -> list[psutil.Process]:
    """The live processes that carry the mark in their environment, except this one."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if marked and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a blank and a percent sign in its path. What was started for it must be gone at the end."""
    mark = str(tmp_path)
    monkeypatch.setenv(_MARK, mark)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path / "my 100% home"
    until(lambda: not started_by(mark))
    assert not list(tmp_path.glob("matchloop-*"))


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=home)


def ping(stack: Stack) -> bool:
    url = stack.endpoints.redis
    assert url is not None
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def test_starts_answers_and_stops(settings: Settings) -> None:
    said: list[tuple[float, str]] = []
    with Stack(settings) as stack:
        stack.start(*SERVERS, progress=lambda fraction, message: said.append((fraction, message)))
        assert ping(stack)
        host, port = (stack.endpoints.kafka or "").split(":")
        servers.kafka_answers(host, int(port))
        assert stack.endpoints.mlflow is None
        assert stack.endpoints.api is None
        assert {(p.name, p.healthy) for p in stack.status()} == {("broker", True), ("redis", True)}
        assert all(p.log.is_file() for p in stack.status())
        assert stack.settings.kafka.bootstrap == stack.endpoints.kafka
        (run,) = (settings.home / "run").iterdir()
        assert run.stat().st_mode & 0o077 == 0
        assert (run / "settings.json").stat().st_mode & 0o077 == 0
        with pytest.raises(MatchLoopError, match="already running"):
            Stack(settings).start("redis")
        assert ping(stack), "the refused start must not end the running stack"
    assert not stack.running
    assert stack.status() == []
    assert [fraction for fraction, _ in said] == [0.5, 1.0]


def test_what_an_earlier_boot_of_this_host_left_is_removed(settings: Settings) -> None:
    name = host_name(None)
    for run in (f"{name}-00000000", "another-00000000"):
        (settings.home / "run" / run).mkdir(parents=True)
        (settings.home / "run" / run / "settings.json").write_text("{}")
    with Stack(settings) as stack:
        stack.start("redis")
        assert {run.name for run in (settings.home / "run").iterdir()} == {run_name(name), "another-00000000"}


def test_redis_comes_back_with_its_data_after_kill_9(settings: Settings) -> None:
    with Stack(settings) as stack:
        stack.start("redis")
        with redis.Redis.from_url(stack.endpoints.redis or "") as client:
            client.set("kept", 1)
        (before,) = stack.status()
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: any(p.healthy and p.pid != before.pid for p in stack.status()))
        with redis.Redis.from_url(stack.endpoints.redis or "") as client:
            assert client.get("kept") == b"1"


def test_a_program_can_be_restarted(settings: Settings) -> None:
    with Stack(settings) as stack:
        stack.start("redis")
        (before,) = stack.status()
        stack.restart("redis")
        (after,) = stack.status()
        assert after.healthy
        assert after.pid != before.pid
        assert after.port == before.port


def test_two_stacks_in_two_homes_run_at_once(home: Path) -> None:
    with Stack(Settings(home=home / "a")) as first, Stack(Settings(home=home / "b")) as second:
        first.start(*SERVERS)
        second.start(*SERVERS)
        assert first.endpoints != second.endpoints
        first.stop()
        assert ping(second)


def test_a_busy_port_is_passed_over(settings: Settings) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((servers.LOOPBACK, 16379))
            other.listen()
        except OSError:
            pass  # somebody else has it: as good
        with Stack(settings) as stack:
            stack.start("redis")
            assert ping(stack)
            assert stack.status()[0].port != 16379


def test_a_port_lost_between_choice_and_start_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = servers.free_port
    with socket.socket() as other:
        other.bind((servers.LOOPBACK, 0))
        other.listen()
        lost = other.getsockname()[1]
        choices = iter([lost])
        monkeypatch.setattr(
            servers,
            "free_port",
            lambda preferred=0, taken=frozenset(), host=servers.LOOPBACK: (
                next(choices, None) or choose(preferred, taken, host)
            ),
        )
        with Stack(settings) as stack:
            stack.start("redis")
            assert ping(stack)
            assert stack.status()[0].port != lost


def test_a_program_that_cannot_start_is_named_with_its_log_and_nothing_stays(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "redis").mkdir()
    (settings.home / "redis" / "appendonlydir").write_text("not a directory")
    stack = Stack(settings)
    with pytest.raises(Unavailable, match=r"redis did not start(.|\n)*appendonlydir(.|\n)*Its log: .*redis\.log"):
        stack.start(*SERVERS)
    assert not stack.running


def test_your_own_server_is_not_replaced(home: Path, redis_url: str) -> None:
    with Stack(Settings(home=home, redis=RedisSettings(url=SecretStr(redis_url)))) as stack:
        stack.start(*SERVERS)
        assert stack.endpoints.redis == redis_url
        assert [p.name for p in stack.status()] == ["broker"]


def test_a_stack_in_the_background_is_found_and_stopped_by_others(settings: Settings) -> None:
    first = Stack(settings, foreground=False)
    first.start("redis")
    found = Stack.attach(settings)
    assert ping(found)
    found.start("broker")
    assert {p.name for p in found.status()} == {"broker", "redis"}
    found.stop()
    assert not found.running
    first.stop()
    with pytest.raises(Unavailable, match="matchloop up"):
        Stack.attach(settings)


def test_up_does_without_the_api_while_no_release_is_promoted(home: Path) -> None:
    (home / "releases" / "0123456789abcdef").mkdir(parents=True)  # trained, and refused by the gate
    variables = {"MATCHLOOP_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}

    def matchloop(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=False)

    try:
        done = matchloop("up")
        assert done.returncode == 0, done.stderr
        assert "There is no release yet" in done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines()[1:5]] == ["broker", "redis", "updater", "sink"]
    finally:
        matchloop("down")


def test_nothing_survives_a_killed_supervisor_and_the_next_start_cleans_up(settings: Settings) -> None:
    first = Stack(settings)
    first.start(*SERVERS)
    pids = [p.pid for p in first.status()]
    (supervisor,) = [p for p in started_by(os.environ[_MARK]) if "supervisor.supervisord" in " ".join(p.cmdline())]
    supervisor.kill()
    until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids))
    until(lambda: not first.running)
    with Stack(settings) as second:
        second.start(*SERVERS)
        assert ping(second)
    first.stop()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_foreground_stack_ends_with_whoever_started_it(settings: Settings, sent: signal.Signals) -> None:
    program = (
        "import signal, sys; from pathlib import Path\n"
        "from infra.settings import Settings; from infra.stack import Stack\n"
        "with Stack(Settings(home=Path(sys.argv[1]))) as stack:\n"
        "    stack.start('broker', 'redis'); print('up', flush=True); signal.pause()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(settings.home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(started_by(os.environ[_MARK])) >= 3
        process.send_signal(sent)
    until(lambda: not started_by(os.environ[_MARK]))
    with Stack(settings) as stack:
        stack.start("redis")  # and with it, what the killed one left is removed


def test_a_group_leash_ends_what_the_command_forked(home: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    holder = (
        "import os, signal, subprocess, sys; from infra.leash import leashed\n"
        "subprocess.Popen(leashed([sys.executable, '-c', sys.argv[1]], os.getpid(), signal.SIGTERM, group=True))\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder, child], cwd=Path(__file__).parents[2]) as process:
        try:
            until(lambda: len(started_by(os.environ[_MARK])) == 4)  # holder, leash, command, its child
        finally:
            process.kill()
    until(lambda: not started_by(os.environ[_MARK]))


def test_a_leash_refuses_a_parent_that_is_gone(home: Path) -> None:
    command = leashed([sys.executable, "-c", "print('ran')"], parent=1 << 22, sent=signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
