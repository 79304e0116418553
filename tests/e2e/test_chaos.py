"""Every kind of kill once, under load: nothing is lost, nothing counts twice."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(1800)
def test_nothing_is_lost_and_nothing_doubled_whatever_is_killed() -> None:
    command = [
        sys.executable,
        "-m",
        "infra.cli",
        "bench",
        "chaos",
        "--seconds",
        "12",
        "--kills",
        "4",
        "--json",
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["results"]
    assert len({disturbance["kind"] for disturbance in found["disturbances"]}) == 4
    assert found["audit"]["trials"] > 500
    assert found["audit"]["repeated_events"] > 0
