"""The serving bench on real servers. Its goals are for a machine of its own: `matchloop bench serving`."""

import os
from pathlib import Path

import pytest

from infra.benchmarks.serving.bench import rows, run
from offline_training.progress import silent


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it pins processes to two cores")
def test_an_api_process_is_measured_beside_a_bare_endpoint(tmp_path: Path) -> None:
    results, goals = run(1, silent, sizes="1000", seconds=1.0, picture=tmp_path / "profile.svg")
    found = results["sizes"]["1000"]
    assert found["failures"] == 0
    assert 0 < found["cpu_ratio"] < 1
    assert found["cpu_ms_by_part"]["user tower"] > 0
    assert {goal.name for goal in goals} >= {"throughput to bare", "logged", "p99 at 70 %"}
    assert rows(results)[0] == ["CPU per request, ms", "1,000 items"]
    assert "user tower" in (tmp_path / "profile.svg").read_text()
