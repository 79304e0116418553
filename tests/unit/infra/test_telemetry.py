"""Lines of the logs."""

import json
import logging
import sys
from pathlib import Path

import pytest

from feature_store.contracts.tracing import Trace, within
from infra.telemetry import Json, Text
from tests.unit.infra.test_cli import matchloop

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=False)
PASSWORD = "open-sesame-and-close"


def record(message: str, failure: bool = False) -> logging.LogRecord:
    made = logging.LogRecord("streaming.updater", logging.WARNING, "f.py", 1, message, None, None)
    made.created = 1769860800.123
    if failure:
        try:
            raise ValueError(f"at redis://me:{PASSWORD}@host")
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


def test_text_is_one_line_for_people() -> None:
    assert Text().format(record("a\nb\\c")) == r"2026-01-31T12:00:00.123Z WARNING streaming.updater: a\nb\\c"
    with within(TRACE):
        line = Text().format(record("late"))
    assert line == f"2026-01-31T12:00:00.123Z WARNING streaming.updater trace_id={TRACE.id}: late"


def test_json_is_one_object_for_programs() -> None:
    about = {"time": "2026-01-31T12:00:00.123Z", "level": "warning", "logger": "streaming.updater"}
    assert json.loads(Json().format(record("a\nb"))) == about | {"message": "a\nb"}
    with within(TRACE):
        line = Json().format(record("late \udc80", failure=True))
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("exception").endswith("ValueError: at redis://me:***@host")
    assert found == about | {"message": "late \udc80", "trace_id": TRACE.id}


@pytest.mark.parametrize("formatter", [Text(), Json()])
def test_passwords_of_addresses_are_in_no_line(formatter: logging.Formatter) -> None:
    assert PASSWORD not in formatter.format(record(f"no answer of redis://me:{PASSWORD}@host:1/0", failure=True))


@pytest.mark.parametrize("command", ["serve", "sink", "doctor", "status"])
def test_no_secret_is_written_whatever_fails(tmp_path: Path, command: str) -> None:
    file = tmp_path / "kafka"
    file.write_text(f"{PASSWORD}-kafka")
    properties = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": f"file:{file}",
    }
    done = matchloop(
        tmp_path / "home",
        *("--log-level", "debug", command),
        MATCHLOOP_SECRET=f"{PASSWORD}-of-the-installation",
        MATCHLOOP_SERVING_HOST="nowhere.invalid",  # where the API could not listen, once it came so far
        MATCHLOOP_SERVING_API_KEY=f"{PASSWORD}-of-the-api",
        MATCHLOOP_KAFKA_BOOTSTRAP="127.0.0.1:1",
        MATCHLOOP_KAFKA_PROPERTIES=json.dumps(properties),
        MATCHLOOP_REDIS_URL=f"redis://me:{PASSWORD}-redis@127.0.0.1:1/0",
        MLFLOW_TRACKING_URI=f"http://me:{PASSWORD}-mlflow@127.0.0.1:1",
        MATCHLOOP_NOTIFY_WEBHOOK=f"http://me:{PASSWORD}-hook@127.0.0.1:1",
        MATCHLOOP_LOGGING_FORMAT="json",
    )
    assert done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_process_that_cannot_work_says_so_as_its_logs_are_written(tmp_path: Path) -> None:
    done = matchloop(tmp_path, "update", MATCHLOOP_KAFKA_BOOTSTRAP="127.0.0.1:1", MATCHLOOP_LOGGING_FORMAT="json")
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["level"], last["logger"]) == (1, "error", "matchloop")
    assert "MATCHLOOP_REDIS_URL" in last["message"]
