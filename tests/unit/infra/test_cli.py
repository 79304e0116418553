"""The command line: quick to answer, one line for an error, an example for every command."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from infra.cli import app, in_words
from infra.commands.online import nothing_liked

ROOT = Path(__file__).parents[3]


def commands(group: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        words = (*path, name)
        found |= commands(command, words) if hasattr(command, "commands") else {" ".join(words): command}
    return found


COMMANDS = commands(typer.main.get_command(app))


def matchloop(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MATCHLOOP_", "MLFLOW_"))}
    environment = {**kept, "MATCHLOOP_HOME": str(home), "COLUMNS": "200", **variables}
    command = [sys.executable, "-m", "infra.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_how_to_use_it(name: str) -> None:
    command = COMMANDS[name]
    assert f"Example: `matchloop {name}" in (command.help or "")
    assert all(getattr(parameter, "help", None) for parameter in command.params if parameter.name != "help")
    if name not in (
        "serve",
        "update",
        "sink",
        "schedule",
        "connect",
    ):  # they run until stopped, and say what happens in their logs
        assert any("--json" in parameter.opts for parameter in command.params)


def test_help_does_not_load_what_only_running_needs() -> None:
    heavy = ["numpy", "torch", "pyspark", "mlflow", "pandas", "pyarrow", "pydantic", "kafka", "redis", "fastapi"]
    code = f"import sys; import infra.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("learning", "off"), "Start the stack with `matchloop up`, or set MATCHLOOP_KAFKA_BOOTSTRAP"),
        (("bench", "zoo"), "There is no bench 'zoo'"),
        (("import", "/nowhere"), "/nowhere"),
        (("--config", "/nowhere.toml", "status"), "The settings file /nowhere.toml cannot be read"),
        (("up", "--only", "zoo"), "There is no program 'zoo'"),
        (("simulate", "/nowhere"), "The API is not running"),
        (("experiment", "list"), "No online store is running in this home directory"),
        (("experiment", "create", "/nowhere.toml"), "The file /nowhere.toml cannot be read"),
        (("state", "rollback"), "Specify what to leave out: --to TIME, --users FILE, or both"),
        (("state", "rollback", "--to", "soon"), "--to 'soon' is not a time. Give 2026-01-31T12:00"),
        (("state", "rollback", "--users", "/nowhere"), "The file of users /nowhere cannot be read"),
        (("release", "rollback"), "No online store is running in this home directory"),
        (("release", "promote", "abc", "--override", " "), "--override needs a reason"),
        (("deadletter", "retry"), "Specify which dead letters to retry: --reason TEXT, or --all"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = matchloop(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("matchloop: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="nobody may write there, not even root")
def test_a_home_that_cannot_be_written_is_said_with_the_remedy() -> None:
    done = matchloop(Path("/sys/matchloop"), "up", "--only", "redis")
    assert done.returncode == 1
    assert "/sys/matchloop" in done.stderr
    assert "set MATCHLOOP_HOME to a directory of yours" in done.stderr
    assert "unexpected" not in done.stderr


def test_a_full_disk_is_said_with_the_remedy() -> None:
    said = in_words(OSError(errno.ENOSPC, "No space left on device", "/home/lake/x"))
    assert said.startswith("No space is left on the disk: /home/lake/x. Free some")
    assert "unexpected" not in in_words(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert "unexpected" in in_words(OSError(errno.EIO, "Input/output error"))


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    done = matchloop(tmp_path, "--debug", "bench", "zoo")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_without_a_stack_status_and_down_say_so_and_make_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    status = json.loads(matchloop(home, "status", "--json").stdout)
    assert status["running"] is False
    assert status["programs"] == []
    assert json.loads(matchloop(home, "down", "--json").stdout)["stopped"] is False
    assert not home.exists()


def test_settings_shows_what_is_in_effect_without_secrets(tmp_path: Path) -> None:
    done = matchloop(tmp_path, "settings", "--json", MATCHLOOP_SECRET="do not tell anybody", MATCHLOOP_BANDIT_ALPHA="2")
    shown = json.loads(done.stdout)
    assert shown["bandit"]["alpha"] == 2
    assert "do not tell" not in done.stdout


def test_doctor_finds_nothing_wrong_where_the_tests_run_except_perhaps_resources(tmp_path: Path) -> None:
    checks = {check["name"]: check for check in json.loads(matchloop(tmp_path, "doctor", "--json").stdout)["checks"]}
    for name in ("python", "java", "embedded broker", "embedded redis", "embedded mlflow", "home"):
        assert checks[name]["ok"], checks[name]


def test_doctor_says_what_to_do(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    done = matchloop(blocked, "doctor", MATCHLOOP_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert done.returncode == 1
    assert "home: Set MATCHLOOP_HOME to a directory of yours." in done.stdout
    assert "kafka: Check kafka.bootstrap and kafka.properties." in done.stdout


def test_the_remedy_of_a_simulation_without_reward_is_a_time_that_train_reads() -> None:
    words = nothing_liked(1_748_131_200_999)
    assert "`matchloop train --until 2025-05-25T00:00:00`" in words
