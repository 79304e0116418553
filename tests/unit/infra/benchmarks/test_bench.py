"""The one shape of benches."""

import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from feature_store.contracts.errors import InvalidInput
from infra.benchmarks import bench
from infra.benchmarks.bench import Goal
from offline_training.progress import Progress, silent


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [(2.0, "higher", True), (1.9, "higher", False), (2.0, "lower", True), (2.1, "lower", False)],
)
def test_a_goal_is_met_on_its_side_of_the_target(value: float, better: Any, met: bool) -> None:
    assert Goal(name="g", value=value, target=2.0, unit="s", better=better).met is met


def test_a_figure_that_is_not_a_number_meets_no_goal() -> None:
    assert not Goal(name="g", value=math.nan, target=2.0, unit="s", better="higher").met
    assert not Goal(name="g", value=math.nan, target=2.0, unit="s", better="lower").met


def test_every_bench_prints_the_same_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("a_bench")

    def run(data: Path | None, seed: int, progress: Progress) -> tuple[dict[str, Any], list[Goal]]:
        progress(1.0, "measured")
        goal = Goal(name="fast", value=1.0, target=2.0, unit="ms", better="lower")
        return {"data": str(data), "seed": seed}, [goal]

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_bench", module)
    monkeypatch.setitem(bench.BENCHES, "a", "a_bench")
    result = bench.run("a", tmp_path, 7, silent)
    printed = result.as_dict()
    assert list(printed) == ["name", "commit", "machine", "seed", "seconds", "results", "goals"]
    assert printed["results"] == {"data": str(tmp_path), "seed": 7}
    assert printed["goals"] == [{"name": "fast", "value": 1.0, "target": 2.0, "unit": "ms", "met": True}]
    assert printed["machine"]["cores"] >= 1
    assert result.met


def test_an_unknown_bench_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"There is no bench 'zoo'\. There are: .*loop"):
        bench.run("zoo", None, 0, silent)


def test_the_graph_bench_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="knows ml-100k and ml-1m, not 'netflix'"):
        bench.run("graph", tmp_path, 0, silent, dataset="netflix")
    with pytest.raises(InvalidInput, match="needs --data: a folder that holds ml-100k"):
        bench.run("graph", tmp_path, 0, silent)
