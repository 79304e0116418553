"""What a command and a webhook are told, and that neither can do harm."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from feature_store.contracts.errors import ReleaseRefused, Unavailable
from infra.notification import PROMOTION, NotifySettings, notify, telling_of_failures


def to_file(path: Path) -> NotifySettings:
    return NotifySettings(command=f"sh -c 'cat >> {path}'")


def test_a_command_gets_one_object(tmp_path: Path) -> None:
    notify(to_file(tmp_path / "said"), "/home", PROMOTION, "Release r serves.", "r")
    assert json.loads((tmp_path / "said").read_text()) == {
        "event": "promotion", "release": "r", "words": "Release r serves.", "home": "/home",
    }  # fmt: skip


def test_a_webhook_gets_the_same() -> None:
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = SecretStr(f"http://127.0.0.1:{server.server_address[1]}/hook")
        notify(NotifySettings(webhook=url), "/home", PROMOTION, "words", "r")
        thread.join()
    assert [one["event"] for one in got] == ["promotion"]


@pytest.mark.parametrize(
    "settings",
    [
        NotifySettings(command="false"),
        NotifySettings(command="/nowhere/at/all"),
        NotifySettings(command="'unclosed"),
        NotifySettings(webhook=SecretStr("http://127.0.0.1:9/")),
        NotifySettings(webhook=SecretStr("no url")),
        NotifySettings(),
    ],
)
def test_whatever_is_wrong_with_them_the_work_goes_on(settings: NotifySettings) -> None:
    notify(settings, "/home", PROMOTION, "words")


@pytest.mark.parametrize(
    ("error", "event", "words"),
    [
        (ReleaseRefused("Not good enough."), "refusal", "Not good enough."),
        (Unavailable("Nobody answers."), "failure", "Nobody answers."),
        (KeyError("x"), "failure", "KeyError: 'x'"),
    ],
)
def test_what_ends_the_work_is_told_and_raised(tmp_path: Path, error: Exception, event: str, words: str) -> None:
    with pytest.raises(type(error)), telling_of_failures(to_file(tmp_path / "said"), "/home"):
        raise error
    said = json.loads((tmp_path / "said").read_text())
    assert (said["event"], said["words"], said["release"]) == (event, words, None)
