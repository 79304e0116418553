"""The one shape of benches."""

import math
from typing import Any

import pytest

from infra.benchmarks.bench import Goal, measure
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


def test_every_bench_prints_the_same_fields() -> None:
    def bench(progress: Progress) -> tuple[dict[str, Any], list[Goal]]:
        progress(1.0, "measured")
        return {"answers": 3}, [Goal(name="fast", value=1.0, target=2.0, unit="ms", better="lower")]

    result = measure("a", 7, bench, silent)
    printed = result.as_dict()
    assert list(printed) == ["name", "commit", "machine", "seed", "seconds", "results", "goals"]
    assert printed["seed"] == 7
    assert printed["results"] == {"answers": 3}
    assert printed["goals"] == [{"name": "fast", "value": 1.0, "target": 2.0, "unit": "ms", "met": True}]
    assert printed["machine"]["cores"] >= 1
    assert result.met
