"""`matchloop demo --quick`, as a newcomer runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


def test_a_library_to_play_with_is_up_and_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MATCHLOOP_")}

    def matchloop(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "infra.cli", *arguments]
        return subprocess.run(command, cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, check=False)

    refused = matchloop("demo", "--quick", "--visits", "10")
    assert refused.returncode == 1
    assert "--visits" in refused.stderr
    made = matchloop("demo", "--quick", "--json", MATCHLOOP_HOME=str(tmp_path))
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    try:
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
