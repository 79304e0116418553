"""The bench of item lists: what it compares, on places that are given."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import lists as bench
from benchmarks.lists import ITEM_CF, PI2I, RULES, SEQUENTIAL_CF, SWING, TOWERS, UNION
from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.protocols import TEST, Protocol, Task
from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.baselines import Interactions
from offline_training.progress import silent

PERSON = np.array([7, 7, 9, 9])
PLACES = {
    ITEM_CF: np.array([0, 200, 60, 9]),
    SEQUENTIAL_CF: np.array([200, 200, 200, 200]),
    SWING: np.array([10, 49, 50, 199]),
    PI2I: np.array([0, 9, 10, 49]),
    TOWERS: np.array([9, 9, 9, 200]),
    UNION: np.array([0, 0, 0, 0]),
}


def test_everybody_counts_once_and_is_compared_with_themselves() -> None:
    uneven = np.array([7, 9, 9, 9])
    found = bench.compared(PLACES, uneven)
    assert found["models"][ITEM_CF]["hit_rate@10"]["mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["models"][SWING]["hit_rate@50"]["mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["models"][SEQUENTIAL_CF]["hit_rate@200"] == {"mean": 0, "low": 0, "high": 0}
    ahead = found["ahead"][PI2I][ITEM_CF]["hit_rate@50"]  # by 0 of person 7, and by 2/3 of person 9
    half = 1.96 * np.std([0, 2 / 3], ddof=1) / np.sqrt(2)
    assert [ahead["mean"], ahead["low"]] == pytest.approx([1 / 3, 1 / 3 - half])
    assert found["ahead"].keys() == {PI2I, UNION}


def test_goals_hold_pi2i_against_every_rule_at_every_size(tmp_path: Path) -> None:
    found = bench.compared(PLACES, PERSON)
    goals = {goal.name: goal for goal in bench.goals("ml-100k", found["ahead"])}
    assert len(goals) == len(RULES) * len(bench.SIZES)
    assert goals["ml-100k.hit_rate@50.pi2i_ahead_of_swing"].value == pytest.approx(0.5)
    level = goals["ml-100k.hit_rate@10.pi2i_ahead_of_item_cf"]
    assert (level.value, level.met) == (0, True)
    table = bench.rows(found)
    assert table[0] == ["MODEL", "hit_rate@10", "hit_rate@50", "hit_rate@200"]
    assert table[1][0] == SEQUENTIAL_CF

    bench.draw_sizes(found["models"], "found", tmp_path / "sizes.png")
    bench.draw_lengths({ITEM_CF: {1: 0.1, 2: 0.3, 3: 0.3}}, {ITEM_CF: 2}, "lengths", tmp_path / "lengths.png")
    assert (tmp_path / "sizes.png").stat().st_size > 5_000
    assert (tmp_path / "lengths.png").stat().st_size > 5_000


def test_who_is_not_asked_has_no_moments() -> None:
    """User 0 is asked after two events, 1 is not asked, 2 is asked about everything."""
    log = Interactions(np.array([0, 0, 0, 1, 1, 2]), np.arange(6), np.arange(6), 3, 6)
    dataset = Dataset(log, np.full(6, "like+"), np.ones(6, np.bool_), [], [[]] * 3)
    task = Task(np.array([0, 1, 3, 4]), np.array([0, 2]), np.array([0, 1]), [np.array([2]), np.array([5])], {})
    protocol = Protocol(dataset, task, {TEST: task}, [("hit_rate", 10)], ("hit_rate", 10), {})
    assert bench.known_events(protocol).tolist() == [2, 2, 0]


def test_two_rankings_take_turns() -> None:
    found = bench.alternating(np.array([5, 3, 1]), np.array([3, 4, 5, 8]))
    assert found.tolist() == [5, 3, 4, 1, 8]
    assert bench.alternating(np.array([], np.int64), np.array([2, 1])).tolist() == [2, 1]


def test_what_the_bench_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not 'gowalla-lightgcn'"):
        bench.run(tmp_path, 0, silent, dataset="gowalla-lightgcn", out=None)
    with pytest.raises(InvalidInput, match="--data"):
        bench.run(None, 0, silent, dataset="ml-100k", out=None)
