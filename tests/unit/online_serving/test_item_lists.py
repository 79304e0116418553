"""What item lists recommend, on lists of a few items."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.arrays import Bool, Float32, Int64
from feature_store.contracts.errors import ReleaseRefused
from online_serving.item_lists import FADING, TARGETS, TOTAL, TRIGGERS, ItemLists, Pairs
from online_serving.release_files import LIST_ITEMS

LISTS = ItemLists(
    np.array([[1, 2, -1], [0, 3, 2], [3, -1, -1], [-1, -1, -1]], np.int32),
    np.array([[0.5, 0.2, 0], [0.8, 0.3, 0.2], [0.1, 0, 0], [0, 0, 0]], np.float32),
)
EVERYTHING = np.ones(6, np.bool_)  # two live items, which no list knows
VECTORS = np.eye(6, dtype=np.float32)


def by_rank(
    triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
) -> Float32:
    """Those that their lists name last come first."""
    return cross[:, :, 2]


def test_targets_are_united_by_summed_scores_with_their_strongest_trigger() -> None:
    pairs = LISTS.pairs(np.array([1, 0]), EVERYTHING)
    twice = 0.2 + 0.8 * 0.2  # both lists hold item 2, and the newer trigger says more
    old = 0.8 * 0.5
    assert FADING == 0.8
    assert pairs.target.tolist() == [0, 1, 2, 3]
    assert pairs.trigger.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(np.exp(pairs.cross[:, TOTAL]), [0.8, old, twice, 0.3], rtol=1e-6)
    np.testing.assert_allclose(np.exp(pairs.cross[:, 1]), [0.8, old, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(np.expm1(pairs.cross[:, 2:4]), [[0, 0], [0, 1], [2, 0], [1, 0]], rtol=1e-6, atol=1e-7)
    assert pairs.cross[:, 4].tolist() == [1, 1, 2, 1]
    np.testing.assert_allclose(np.expm1(pairs.cross[:, 5]), range(4), rtol=1e-6)


def test_what_is_not_allowed_is_no_target() -> None:
    allowed = np.array([False, True, False, True, True, True])
    assert LISTS.pairs(np.array([1, 0]), allowed).target.tolist() == [1, 3]
    assert LISTS.pairs(np.array([3]), EVERYTHING).cross.shape == (0, 6)
    assert LISTS.pairs(np.array([], np.int64), EVERYTHING).target.tolist() == []


def test_triggers_are_the_newest_with_a_list_each_once() -> None:
    assert LISTS.triggers(np.array([5, 2, 0, 2, 1])).tolist() == [2, 0, 1]
    long = ItemLists(np.zeros((50, 1), np.int32), np.ones((50, 1), np.float32))
    assert long.triggers(np.arange(50)).tolist() == list(range(TRIGGERS))


def test_the_scorer_says_who_comes_first() -> None:
    def recommended(liked: list[int], count: int) -> list[int]:
        found = LISTS.recommend(by_rank, VECTORS, VECTORS[0], np.array(liked, np.int64), EVERYTHING, count)
        return [int(item) for item in found]

    assert recommended([1, 0], 9) == [2, 3, 0, 1]
    assert recommended([1, 0], 2) == [2, 3]
    assert recommended([5, 3], 9) == []


def test_targets_with_the_smallest_sums_are_left_out() -> None:
    width = TARGETS
    items = np.stack([np.arange(2, width + 2), np.arange(100, width + 100)]).astype(np.int32)
    scores = np.linspace(1, 0.1, width, dtype=np.float32)
    pairs = ItemLists(items, np.stack([scores, scores])).pairs(np.array([0, 1]), np.ones(width + 100, np.bool_))
    total = np.zeros(width + 100)
    for place in range(2):
        total[items[place]] += FADING**place * scores
    assert len(pairs.target) == TARGETS < width + 98
    np.testing.assert_allclose(np.exp(pairs.cross[:, TOTAL]), np.sort(total)[::-1][:TARGETS], rtol=1e-5)
    np.testing.assert_allclose(total[pairs.target], np.exp(pairs.cross[:, TOTAL]), rtol=1e-5)


def plain_pairs(lists: ItemLists, triggers: Int64, allowed: Bool) -> Pairs:
    """ItemLists.pairs in NumPy."""
    items, scores = lists.items[triggers], lists.scores[triggers]
    parts = scores * (FADING ** np.arange(len(triggers), dtype=np.float32))[:, None]
    offered = np.flatnonzero((items >= 0) & allowed[items])
    offered = offered[np.argsort(-parts.ravel()[offered], kind="stable")]
    found, best, number = np.unique(items.ravel()[offered], return_index=True, return_inverse=True)
    total, named = np.bincount(number, parts.ravel()[offered]), np.bincount(number)
    order = np.argsort(-total, kind="stable")[:TARGETS]
    pair = offered[best[order]]
    trigger, rank = np.divmod(pair, items.shape[1])
    columns = [np.log(total[order]), np.log(parts.ravel()[pair]), np.log1p(rank), np.log1p(trigger), named[order]]
    cross = np.stack([*columns, np.log1p(np.arange(len(order)))], axis=1).astype(np.float32)
    return Pairs(trigger, found[order].astype(np.int64), cross)


@given(seed=st.integers(0, 10_000), count=st.integers(0, TRIGGERS), share=st.floats(0, 1))
@settings(deadline=None)
def test_the_kernel_gives_what_plain_numpy_does(seed: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(90)[:40] for _ in range(90)]).astype(np.int32)
    items[:, 30:][rng.random((90, 10)) < 0.5] = -1
    lists = ItemLists(items, 0.5 ** rng.integers(1, 6, items.shape).astype(np.float32))
    triggers, allowed = rng.permutation(90)[:count], rng.random(90) < share
    found, expected = lists.pairs(triggers, allowed), plain_pairs(lists, triggers, allowed)
    assert sorted(found.target.tolist()) == sorted(expected.target.tolist())
    mine, theirs = np.argsort(found.target), np.argsort(expected.target)
    assert found.trigger[mine].tolist() == expected.trigger[theirs].tolist()
    np.testing.assert_allclose(found.cross[mine, :5], expected.cross[theirs, :5], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.cross[:, TOTAL], expected.cross[:, TOTAL], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.cross[:, 5], expected.cross[:, 5], rtol=1e-6)


def test_lists_of_other_items_are_refused_and_none_are_none(tmp_path: Path) -> None:
    assert ItemLists.load(tmp_path, 4) is None
    LISTS.save(tmp_path)
    loaded = ItemLists.load(tmp_path, 4)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.items, LISTS.items)
    with pytest.raises(ReleaseRefused, match="has 5 items, but lists of shape"):
        ItemLists.load(tmp_path, 5)
    np.save(tmp_path / LIST_ITEMS, LISTS.items[:, :2], allow_pickle=False)
    with pytest.raises(ReleaseRefused, match="Train again"):
        ItemLists.load(tmp_path, 4)
