"""What item lists recommend, on lists of a few items."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.errors import ReleaseRefused
from online_serving.item_lists import LIST_ITEMS, MAX_PAIRS, TRIGGERS, Float32, Int64, ItemLists

LISTS = ItemLists(
    np.array([[1, 2, -1], [0, 3, 2], [3, -1, -1], [-1, -1, -1]], np.int32),
    np.array([[0.5, 0.25, 0], [0.8, 0.4, 0.2], [0.1, 0, 0], [0, 0, 0]], np.float32),
)
EVERYTHING = np.ones(6, np.bool_)  # two live items, which no list knows
VECTORS = np.eye(6, dtype=np.float32)


def by_score(
    triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
) -> Float32:
    return cross[:, :, 0]


def test_pairs_are_the_lists_of_the_triggers_with_their_numbers() -> None:
    pairs = LISTS.pairs(np.array([1, 0]), EVERYTHING)
    assert pairs.trigger.tolist() == [0, 0, 0, 1, 1]
    assert pairs.target.tolist() == [0, 3, 2, 1, 2]
    twice = np.log(0.2 / 1 + 0.25 / 2)  # both lists hold item 2
    np.testing.assert_allclose(pairs.cross[2], [np.log(0.2), twice, np.log(3), 0, 2], rtol=1e-6)
    np.testing.assert_allclose(pairs.cross[4], [np.log(0.25), twice, np.log(2), np.log(2), 2], rtol=1e-6)
    np.testing.assert_allclose(pairs.cross[0], [np.log(0.8), np.log(0.8), 0, 0, 1], rtol=1e-6, atol=1e-7)


def test_what_is_not_allowed_is_no_pair() -> None:
    allowed = np.array([False, True, False, True, True, True])
    assert LISTS.pairs(np.array([1, 0]), allowed).target.tolist() == [3, 1]
    assert LISTS.pairs(np.array([3]), EVERYTHING).cross.shape == (0, 5)


def test_triggers_are_the_newest_with_a_list_each_once() -> None:
    assert LISTS.triggers(np.array([5, 2, 0, 2, 1])).tolist() == [2, 0, 1]
    long = ItemLists(np.zeros((50, 1), np.int32), np.ones((50, 1), np.float32))
    assert long.triggers(np.arange(50)).tolist() == list(range(TRIGGERS))


def test_an_item_is_as_good_as_its_best_pair() -> None:
    """Item 2 comes from 1 with 0.2 and from 0 with 0.25."""

    def recommended(count: int) -> list[int]:
        found = LISTS.recommend(by_score, VECTORS, VECTORS[0], np.array([1, 0]), EVERYTHING, count)
        return [int(item) for item in found]

    assert recommended(9) == [0, 1, 3, 2]
    assert recommended(2) == [0, 1]
    nothing = LISTS.recommend(by_score, VECTORS, VECTORS[0], np.array([5, 3]), EVERYTHING, 9)
    assert nothing.tolist() == []


def test_the_lightest_pairs_are_left_out() -> None:
    width = MAX_PAIRS
    items = np.stack([np.arange(2, width + 2), np.arange(2, width + 2)]).astype(np.int32)
    scores = np.linspace(1, 0.1, width, dtype=np.float32)
    pairs = ItemLists(items, np.stack([scores, scores])).pairs(np.array([0, 1]), np.ones(width + 2, np.bool_))
    assert len(pairs.target) == MAX_PAIRS
    weight = np.concatenate([scores, scores / 2])
    kept = scores[pairs.target - 2] / (1 + pairs.trigger)
    np.testing.assert_allclose(np.sort(kept), np.sort(weight)[-MAX_PAIRS:])


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
