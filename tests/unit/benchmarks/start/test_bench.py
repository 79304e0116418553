"""The bench of warm starts on a few of MovieLens-100K's users, if the data are there."""

import os
from pathlib import Path

import pytest

from benchmarks.start.bench import CHAMPION, SCRATCH, goals, rows, run
from feature_store.contracts.errors import InvalidInput
from offline_training.progress import silent

DATA = os.environ.get("MATCHLOOP_TEST_DATA")


def figures(seconds: float, recall: float, ndcg: float) -> dict[str, float]:
    found = {"seconds": seconds}
    for model in ("two_stage", "retrieval"):
        found |= {f"{model}_recall_at_50": recall, f"{model}_ndcg_at_10": ndcg}
    return found


def test_goals_are_of_the_means() -> None:
    each = {SCRATCH: [figures(90, 0.4, 0.2)], CHAMPION: [figures(30, 0.36, 0.22)]}
    results = {"retrains": each, "mean": {name: one[0] for name, one in each.items()}}
    found = {goal.name: (goal.value, goal.met) for goal in goals(results)}
    assert found == {
        "faster": (3.0, True),
        "kept.recall_at_50": (pytest.approx(0.9), False),
        "kept.ndcg_at_10": (pytest.approx(1.1), True),
    }
    assert [row[:3] for row in rows(results)[1:]] == [
        ["1", "scratch", "90"], ["mean", "scratch", "90"], ["1", "champion", "30"], ["mean", "champion", "30"]
    ]  # fmt: skip


def test_data_are_needed() -> None:
    with pytest.raises(InvalidInput, match="needs --data"):
        run(None, 0, silent, dataset="ml-100k", users=None, retrains=1)


@pytest.mark.skipif(DATA is None, reason="MATCHLOOP_TEST_DATA names no folder of data sets (ml-100k is read)")
def test_both_are_trained_and_asked() -> None:
    results, _ = run(Path(str(DATA)), 0, silent, dataset="ml-100k", users=100, retrains=1)
    assert results["users"] == 100
    assert all(0 < results["mean"][name]["two_stage_recall_at_50"] <= 1 for name in (SCRATCH, CHAMPION))
