"""Item-to-item lists from a handful of users, against scores worked out by hand and against NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from benchmarks.retrieval.item_lists import as_matrix, spark_lists
from offline_training.data.item_lists import ItemCf, Swing, item_lists
from offline_training.evaluation.baselines import Interactions

Taken = dict[str, Sequence[str]]  # user -> items, oldest first

_SCHEMA = "user string, items array<string>, positives array<boolean>, times array<bigint>"


def users(spark: SparkSession, taken: Taken, disliked: Taken | None = None) -> DataFrame:
    """One item a millisecond; what was disliked comes after the rest."""
    rows = []
    for user, items in taken.items():
        other = list((disliked or {}).get(user, ()))
        marks = [True] * len(items) + [False] * len(other)
        rows.append((user, [*items, *other], marks, list(range(len(marks)))))
    return spark.createDataFrame(rows, _SCHEMA)


def lists(frame: DataFrame, rule: ItemCf | Swing, length: int = 100, **options: Any) -> dict[str, dict[str, float]]:
    rows = item_lists(frame, rule, length, **options).collect()
    return {row["item"]: dict(zip(row["items"], row["scores"], strict=True)) for row in rows}


def oracle(taken: Taken, rule: ItemCf) -> dict[str, dict[str, float]]:
    names = sorted({item for items in taken.values() for item in items})
    summed = np.zeros((len(names), len(names)))
    count = np.zeros(len(names))
    for items in taken.values():
        at = np.array([names.index(item) for item in items])
        count[at] += 1
        steps = np.arange(len(at))[None] - np.arange(len(at))[:, None]
        weight = np.where(steps > 0, 1.0, rule.backward) * rule.decay ** (np.abs(steps) - 1.0)
        weight[(steps == 0) | (np.abs(steps) > rule.reach)] = 0
        summed[np.ix_(at, at)] += weight * len(at) ** -rule.user_power
    score = summed * count[:, None] ** -rule.trigger_power * count**-rule.target_power
    return {
        name: {names[j]: score[i, j] for j in np.flatnonzero(score[i])}
        for i, name in enumerate(names)
        if score[i].any()
    }


def test_scores_are_the_formula_by_hand(spark: SparkSession) -> None:
    """u took a, b; v took a, b, c. n_a = n_b = 2, n_c = 1."""
    frame = users(spark, {"u": "ab", "v": "abc"})
    found = lists(frame, ItemCf(user_power=1, trigger_power=0.5, target_power=0.5))
    assert found["a"] == pytest.approx({"b": (1 / 2 + 1 / 3) / 2, "c": 1 / 3 / 2**0.5})
    assert found["c"] == pytest.approx({"a": 1 / 3 / 2**0.5, "b": 1 / 3 / 2**0.5})


def test_random_sequences_equal_numpy(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    names = [f"i{n:02d}" for n in range(12)]
    taken = {f"u{n}": rng.choice(names, rng.integers(1, 12), replace=False).tolist() for n in range(30)}
    rule = ItemCf(user_power=0.5, trigger_power=1, target_power=0.2, decay=0.3, backward=0.5)
    found, wanted = lists(users(spark, taken), rule), oracle(taken, rule)
    assert found.keys() == wanted.keys()
    for item, scores in wanted.items():
        assert found[item] == pytest.approx(scores)


def test_only_the_newest_positives_before_a_moment_count(spark: SparkSession) -> None:
    frame = users(spark, {"u": "xabacde", "v": "ab"}, disliked={"u": "yz"})
    rule = ItemCf(user_power=0, trigger_power=0, target_power=0, decay=0.5, backward=0.0, newest=4)
    assert lists(frame, rule, before_ms=6, length=2) == {  # before u took e; x is one too many; a stands where it was
        "a": {"b": 1.0, "c": 1.0},  # taken last; d is cut off, and equals go by id
        "b": {"a": 1.0, "c": 0.5},
        "c": {"d": 1.0},
    }


def test_swing_by_hand(spark: SparkSession) -> None:
    """u and v share a, b; u and w share a, b, c. m_u = 3, m_v = 2, m_w = 3. Of the eight users of hot items three are
    seen, which makes three pairs."""
    hot = {f"user{n}": ["hot", "also"] for n in range(8)}
    found = lists(users(spark, {"u": "abc", "v": "ab", "w": "bca", **hot}), Swing(alpha=1.0, users_per_item=3))
    uv, uw, vw = 1 / 6**0.5 / 3, 1 / 3 / 4, 1 / 6**0.5 / 3
    assert found["a"] == pytest.approx({"b": uv + uw + vw, "c": uw})
    assert found["c"] == pytest.approx({"a": uw, "b": uw})
    assert found["hot"] == pytest.approx({"also": 3 * (1 / 2) / 3})


def test_lists_of_a_bench_are_a_matrix_of_its_items(spark: SparkSession) -> None:
    log = Interactions(np.array([0, 0, 2, 2]), np.array([3, 1, 1, 10]), np.zeros(4, np.int64), 4, 11)
    plain = ItemCf(user_power=0, trigger_power=0, target_power=1)
    wanted = np.zeros((11, 11))
    wanted[1, 3] = wanted[1, 10] = 1
    wanted[3, 1] = wanted[10, 1] = 1 / 2
    np.testing.assert_allclose(as_matrix(spark_lists(spark, log, plain, 5)).toarray(), wanted, rtol=1e-6)
