"""`matchloop up`, `down` and `status` as commands, on real servers: what they start, leave alone, and say."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.benchmarks.small_stack import publish
from infra.schedule.notes import Notes, save, schedule_folder
from infra.settings import Settings
from infra.stack import Stack
from tests.api_server import wait_until

ROOT = Path(__file__).parents[2]
KEY = "sesame, open"


class Home:
    """A home directory and the commands in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def popen(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """A command, begun."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MATCHLOOP_", "MLFLOW_"))}
        ours = {
            "MATCHLOOP_HOME": str(self.path),
            "MATCHLOOP_SERVING_DRAIN_SECONDS": "0",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.path}/mlflow.db",  # a server would take long to start
        }
        return subprocess.Popen(
            [sys.executable, "-m", "infra.cli", *arguments],
            env={**kept, **ours, **variables},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A command, ended."""
        with self.popen(*arguments, **variables) as process:
            output, errors = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def do(self, *arguments: str, **variables: str) -> dict[str, Any]:
        """What a command that must succeed says."""
        done = self.run(*arguments, "--json", **variables)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def pids(self, **variables: str) -> dict[str, int]:
        """The programs that run, with their process ids; on a busy machine one may not answer at once."""
        return {p["name"]: p["pid"] for p in self.do("status", **variables)["programs"] if p["pid"]}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    try:
        yield made
    finally:
        made.run("down")


@pytest.fixture
def released(home: Home) -> Home:
    """With the servers up and a release in them."""
    home.do("up", "--only", "broker", "--only", "redis")
    publish(Stack(Settings(home=home.path)).settings, 30, {})
    return home


def test_with_a_key_and_off_loopback(released: Home) -> None:
    secret = {"MATCHLOOP_SERVING_API_KEY": KEY, "MATCHLOOP_SERVING_HOST": "0.0.0.0"}
    up = released.do("up", **secret)
    assert {program["name"] for program in up["programs"] if program["healthy"]} == {
        "broker", "redis", "updater", "sink", "api",
    }  # fmt: skip
    url = up["endpoints"]["api"]
    assert httpx.get(f"{url}/readyz").json() == {"ready": True}
    body = {"user_id": "u"}
    assert httpx.post(f"{url}/v1/recommendations", json=body).status_code == 401
    key = {"Authorization": f"Bearer {KEY}"}
    assert len(httpx.post(f"{url}/v1/recommendations", json=body, headers=key).json()["items"]) == 10
    for program in ("updater", "sink", "api"):
        (port,) = (p["port"] for p in up["programs"] if p["name"] == program)
        assert "process_cpu_seconds_total" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_release_that_cannot_be_served_is_named_at_once_and_the_rest_goes_on(released: Home) -> None:
    released.do("up", "--only", "updater", "--only", "sink")
    before = released.pids()
    (file,) = (released.path / "releases").glob("*/items.parquet")
    file.unlink()
    refused = released.run("up")
    assert refused.returncode == 1
    assert "items.parquet" in refused.stderr
    assert "api did not start" in refused.stderr
    assert released.pids() == before
    assert set(before) == {"broker", "redis", "updater", "sink"}


def test_whoever_interrupts_up_loses_only_what_it_adds(released: Home) -> None:
    before = released.pids()
    (file,) = (released.path / "namespaces").glob("*/namespace.json")
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)  # the release loads until somebody writes
    with released.popen("up", "--only", "api") as up:
        wait_until(lambda: "is being loaded" in released.run("status").stdout, 300)
        up.send_signal(signal.SIGINT)
        with file.open("wb") as pipe:  # so that it can end
            pipe.write(content)
        up.communicate(timeout=120)
    assert up.returncode != 0
    assert released.pids() == before


def test_two_at_once_take_turns(home: Home) -> None:
    with home.popen("up", "--json") as first, home.popen("up", "--json") as second:
        ended = [process.communicate() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], ended
    pids = home.pids()
    assert set(pids) == {"broker", "redis", "updater", "sink"}
    for output, _ in ended:
        assert {p["name"]: p["pid"] for p in json.loads(output)["programs"]} == pids


def test_what_has_died_is_started_again_and_whoever_followed_a_lost_log_with_it(released: Home) -> None:
    released.do("up")
    before = released.pids()
    os.kill(before["broker"], signal.SIGKILL)
    wait_until(lambda: "broker" not in released.pids(), 60)
    dead = released.run("status")
    assert "broker: It has ended" in dead.stdout
    released.do("up")
    after = released.pids()
    assert after.keys() == before.keys()
    assert after["redis"] == before["redis"]
    assert not set(after.values()) & {before[name] for name in ("broker", "updater", "sink", "api")}
    url = released.do("status")["endpoints"]["api"]
    wait_until(lambda: httpx.post(f"{url}/v1/recommendations", json={"user_id": "u"}).json()["logged"], 60)


def test_a_second_host_leaves_the_first_ones_processes_alone(released: Home) -> None:
    here, there = {"MATCHLOOP_HOST": "a"}, {"MATCHLOOP_HOST": "b"}
    released.run("down")
    released.do("up", "--only", "redis", "--only", "broker", **here)
    before = released.pids(**here)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            _pretend(released.path / "run", bystander.pid)
            assert released.do("status", **there)["running"] is False
            assert released.do("down", **there)["stopped"] is False
            refused = released.run("up", "--only", "redis", **there)
            assert refused.returncode == 1
            assert "is in use by the embedded server of another stack" in refused.stderr
            released.do("up", "--only", "broker", **there)
            assert set(released.pids(**there)) == {"broker"}
            released.do("down", **there)
            assert bystander.poll() is None
            assert released.pids(**here) == before
        finally:
            bystander.kill()
            released.do("down", **here)


def _pretend(run: Path, pid: int) -> None:
    """As if the process had been the supervisor of host b, before that was booted."""
    (run / "b-00000000").mkdir()
    said = {"pid": pid, "created": psutil.Process(pid).create_time() - 60, "directory": "/nowhere", "ports": {}}
    (run / "b-00000000" / "stack.json").write_text(json.dumps(said))


def test_a_pid_that_is_somebody_elses_by_now_gets_no_signal(home: Home) -> None:
    home.do("up", "--only", "redis")
    (file,) = (home.path / "run").glob("*/stack.json")
    said = json.loads(file.read_text())
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            file.write_text(json.dumps({**said, "pid": bystander.pid}))
            home.run("down")
            assert bystander.poll() is None
        finally:
            bystander.kill()
            file.write_text(json.dumps(said))
    home.do("down")


@pytest.mark.parametrize("arguments", [("status",), ("up", "--only", "updater"), ("doctor",)])
def test_no_command_shows_a_password(home: Home, arguments: tuple[str, ...]) -> None:
    urls = {
        "MATCHLOOP_REDIS_URL": "redis://u:hunter2@127.0.0.1:1/0",
        "MLFLOW_TRACKING_URI": "http://u:hunter3@127.0.0.1:1",
        "MATCHLOOP_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    }
    done = home.run(*arguments, **urls)
    logs = "".join(log.read_text() for log in home.path.glob("logs/**/*.log"))
    for text in (done.stdout, done.stderr, logs, home.run(*arguments, "--json", **urls).stdout):
        assert "hunter" not in text


def test_another_secret_is_noticed_before_anything_works_with_it(released: Home) -> None:
    secret = released.path / "secret"
    before = secret.read_text()
    secret.write_text("this one is as long as a secret must be")
    for command in (("serve",), ("update",), ("up", "--only", "api"), ("up",)):
        refused = released.run(*command)
        assert refused.returncode == 1
        assert "was first used with another secret" in refused.stderr
        assert "Set MATCHLOOP_SECRET" in refused.stderr
    checks = {check["name"]: check for check in json.loads(released.run("doctor", "--json").stdout)["checks"]}
    assert not checks["secret"]["ok"]
    secret.write_text(before)
    checks = {check["name"]: check for check in json.loads(released.run("doctor", "--json").stdout)["checks"]}
    assert checks["secret"]["ok"]


def test_a_schedule_is_kept_and_says_what_became_of_the_last_retrain(released: Home) -> None:
    """One that was due while nobody kept the schedule. What it would train on was never imported."""
    cron = "0 0 29 2 *"
    save(schedule_folder(released.path), Notes(cron=cron, next=1))
    scheduled = {"MATCHLOOP_SCHEDULE_CRON": cron}
    assert "schedule" in {p["name"] for p in released.do("up", **scheduled)["programs"] if p["healthy"]}

    def said() -> dict[str, Any]:
        found: dict[str, Any] = released.do("status", **scheduled)["schedule"]
        return found

    wait_until(lambda: said()["last"] is not None)
    last = said()["last"]
    assert (last["reason"], last["outcome"]) == ("the calendar, missed", "failed")
    assert "holds no interactions" in last["words"]
    words = released.run("status", **scheduled).stdout
    assert "for the calendar, missed and took" in words
    assert "It was no success: The lake" in words
    assert "The next one is due" in words
    assert "00:00 UTC (0 0 29 2 *)" in words
