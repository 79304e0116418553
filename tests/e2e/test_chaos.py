"""Everything killed or paused once, under load: nothing is lost, nothing counts twice."""

import json
import subprocess
import sys

import pytest

from infra.benchmarks.chaos import KINDS


@pytest.mark.timeout(1800)
def test_nothing_is_lost_and_nothing_doubled_whatever_is_killed_or_paused() -> None:
    options = ["--seconds", "12", "--kills", str(len(KINDS)), "--json"]
    command = [sys.executable, "-m", "infra.cli", "bench", "chaos", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    missed = {goal["name"] for goal in said["goals"] if not goal["met"]}
    assert missed <= {"recovery_max", "restart_max"}  # how long it takes is for the bench to say
    found = said["results"]
    assert {disturbance["kind"] for disturbance in found["disturbances"]} == set(KINDS)
    assert found["audit"]["trials"] > 500
    assert found["audit"]["repeated_events"] > 0
