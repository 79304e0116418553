"""`matchloop demo --quick`, as a newcomer runs it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """Where to write to a terminal, and what is shown on it."""
    screen, written = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # nobody writes any more
            while block := os.read(screen, 4096):
                shown.append(block)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield written, shown
    finally:
        os.close(written)
        thread.join()
        os.close(screen)


def test_a_library_to_play_with_is_up_and_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MATCHLOOP_")}

    def matchloop(
        *arguments: str, stderr: int = subprocess.PIPE, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        command, environment = [sys.executable, "-m", "infra.cli", *arguments], {**kept, **variables}
        return subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )

    refused = matchloop("demo", "--quick", "--visits", "10")
    assert refused.returncode == 1
    assert "--visits" in refused.stderr
    opened = tmp_path / "opened"
    desktop = {"DISPLAY": ":0", "BROWSER": f"sh -c 'echo %s > {opened}'"}
    with terminal() as (stderr, shown):
        made = matchloop("demo", "--quick", "--json", stderr=stderr, MATCHLOOP_HOME=str(tmp_path), **desktop)
    assert made.returncode == 0, b"".join(shown)
    said = json.loads(made.stdout)
    try:
        assert f"{opened.read_text().strip()}/" == said["playground"]
        with httpx.Client(base_url=said["playground"], timeout=150) as api:
            assert "MatchLoop playground" in api.get("/").text
            body = {"user_id": "Ada (Mystery, Sea)", "slate_size": 10}
            answer = api.post("/v1/recommendations:preview", json=body).json()
            items = [api.get(f"/v1/items/{item['id']}").json() for item in answer["items"]]
            assert all(item["title"].startswith("The ") for item in items)
            hers = [item for item in items if {"Mystery", "Sea"} & set(item["categories"])]
            assert len(hers) >= 8, items
            trials = [item["explanation"]["levels"]["trials"] for item in answer["items"]]
            assert sum(trials) > 0, "others have visited"
            found = api.get("/dashboard.json").json()
            assert {program["name"]: program["healthy"] for program in found["programs"]} == {
                "updater": True, "sink": True, "api": True
            }  # fmt: skip
            learnt = [
                value
                for name, labels, value in found["metrics"]["updater"]
                if (name, labels) == ("matchloop_updater_events_total", {"outcome": "learnt"})
            ]
            assert learnt[0] >= sum(trials)
    finally:
        stopped = matchloop("down", MATCHLOOP_CONFIG=said["config"])
    assert "Stopped the stack" in stopped.stdout
