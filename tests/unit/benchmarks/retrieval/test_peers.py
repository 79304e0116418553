"""One suite for all peers, on a world that can be seen through; then each one's numbers by hand."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from benchmarks.retrieval.contenders import CONTENT_KNN, contenders
from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.item_lists import UNION
from benchmarks.retrieval.measure import Score
from benchmarks.retrieval.peers import ContentKnn, Ease, GfCf
from benchmarks.retrieval.protocols import PROTOCOLS
from benchmarks.retrieval.sequence_peers import Markov, NextItemRidge, SequentialKnn
from feature_store.arrays import Int64
from feature_store.contracts.catalogue import Item
from offline_training.evaluation.baselines import Baseline, Interactions

DAY_MS = 86_400_000
LEFT, RIGHT, NEW = [0, 1, 2], [3, 4, 5], 6  # seven items; one half of the people walks LEFT, the other RIGHT
PEOPLE = 40
IDLE, DISLIKER, LATE_LEFT, LATE_RIGHT = range(PEOPLE, PEOPLE + 4)
READS_NO_PAST = ("popularity", "recent_popularity")
KNOWS_USERS_ONLY = "implicit_bpr"
READS_THE_ORDER = ("markov", "sequential_knn", "next_item_ridge")


def world() -> tuple[Dataset, Int64]:
    """Everybody walks two steps one way, round and round from a place of their own (0, 1 or 4, 5 or 5, 3, say), having
    disliked the other way's first item. Two people walk after training only. Returns it with all rows."""
    rows = []
    for person in range(PEOPLE):
        way, other = (LEFT, RIGHT) if person % 2 else (RIGHT, LEFT)
        rows.append((person, other[0], 0, False))
        rows += [(person, way[(person // 2 + step) % 3], 1 + step, True) for step in range(2)]
    rows.append((DISLIKER, 0, 0, False))
    rows += [(person, way[0], 9, True) for person, way in ((LATE_LEFT, LEFT), (LATE_RIGHT, RIGHT))]
    user, item, day, wanted = (np.array(column) for column in zip(*rows, strict=True))
    items = [Item(id=str(j), categories=["left" if j in LEFT else "right", f"c{j % 2}"]) for j in range(NEW)]
    items.append(Item(id="new", categories=["left", "fresh"]))
    log = Interactions(user, item, day * DAY_MS, LATE_RIGHT + 1, NEW + 1)
    dataset = Dataset(log, np.where(wanted, "rating+", "rating-"), wanted, items, [[]] * (LATE_RIGHT + 1))
    return dataset, np.arange(len(user))


WORLD = world()
PEERS = {one.name: one for name in PROTOCOLS for one in contenders(name, None) if not one.seeded and one.name != UNION}
READERS = [name for name in PEERS if name not in (*READS_NO_PAST, KNOWS_USERS_ONLY)]


@lru_cache
def fitted(name: str) -> Score:
    if name.startswith("implicit"):
        pytest.importorskip("implicit")
    contender, (dataset, rows) = PEERS[name], WORLD
    rows = rows[dataset.log.user[rows] < LATE_LEFT]
    parameters = contender.grid[0] | ({"factors": 4} if "factors" in contender.grid[0] else {})
    (score,) = contender.fit(dataset, rows, 0, **parameters).scores.values()
    return score


def scores_of(name: str, *users: int) -> Any:
    """Of people by what they did."""
    dataset, rows = WORLD
    asked = np.array(users)
    return fitted(name)(asked, rows[np.isin(dataset.log.user[rows], asked)])


@pytest.mark.parametrize("name", PEERS)
def test_every_item_is_scored_for_everybody(name: str) -> None:
    scores = scores_of(name, 0, 1, IDLE, DISLIKER)
    assert scores.shape == (4, NEW + 1)
    assert np.isfinite(scores).all()
    assert (scores.max(axis=1) > scores.min(axis=1)).all(), "somebody new is answered, too"


@pytest.mark.parametrize("name", [name for name in PEERS if name != CONTENT_KNN])
def test_who_knows_items_by_number_ranks_a_new_one_last(name: str) -> None:
    scores = scores_of(name, 0, 1, IDLE)
    assert (scores[:, NEW] <= scores[:, :NEW].min(axis=1) + 1e-6).all()


def test_who_knows_content_ranks_a_new_item_by_it() -> None:
    left, right = scores_of(CONTENT_KNN, 1, 2)
    assert left[NEW] > right[NEW]
    assert right[NEW] < right[RIGHT].min()


@pytest.mark.parametrize("name", [*READERS, KNOWS_USERS_ONLY])
def test_it_ranks_the_way_that_somebody_walks_first(name: str) -> None:
    left, right = scores_of(name, 1, 2)
    assert left[LEFT].sum() > left[RIGHT].sum()
    assert right[RIGHT].sum() > right[LEFT].sum()


@pytest.mark.parametrize("name", PEERS)
def test_a_dislike_is_no_interaction(name: str) -> None:
    assert scores_of(name, DISLIKER) == pytest.approx(scores_of(name, IDLE))


@pytest.mark.parametrize("name", READERS)
def test_it_answers_by_what_came_after_training(name: str) -> None:
    left, right = scores_of(name, LATE_LEFT, LATE_RIGHT)
    assert left[LEFT].sum() > left[RIGHT].sum()
    assert right[RIGHT].sum() > right[LEFT].sum()


@pytest.mark.parametrize("name", READS_THE_ORDER)
def test_the_next_step_comes_first_for_those_who_read_the_order(name: str) -> None:
    walked = [0, 1]
    assert np.argmax(scores_of(name, 1)) == 2, f"person 1 walked {walked}"


#  two people: 0 then 1; one: 0 then 2
TRAIN = Interactions(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 2]), np.zeros(6, np.int64), 3, 4)


def scores_after(model: Baseline, *items: int) -> Any:
    past = Interactions(np.full(len(items), 9), np.array(items), np.zeros(len(items), np.int64), 3, 4)
    return model.fit(TRAIN).score(np.array([9]), past)[0]


def test_markov_is_the_share_of_steps_smoothed() -> None:
    popularity = np.array([3, 2, 1, 0]) / 6
    assert scores_after(Markov(6.0), 1, 0) == pytest.approx((np.array([0, 2, 1, 0]) + 6 * popularity) / (3 + 6))
    assert scores_after(Markov(6.0), 3) == pytest.approx(popularity), "nobody went on from there"


def test_sequential_knn_counts_directed_pairs_by_distance() -> None:
    train = Interactions(np.array([0, 0, 0]), np.array([0, 1, 2]), np.zeros(3, np.int64), 1, 3)
    past = Interactions(np.array([4, 4]), np.array([1, 0]), np.zeros(2, np.int64), 1, 3)
    found = SequentialKnn(0.0, 0.0, window=2, decay=0.5).fit(train).score(np.array([4]), past)[0]
    # After 0: 1 at distance 1 and 2 at distance 2, weights .5 and .25, shares 2/3 and 1/3. After 1, a step ago: only 2.
    assert found == pytest.approx([0, 2 / 3, 1 / 3 + 0.5])
    assert scores_after(SequentialKnn(0.0, 0.5, window=1), 1, 0) == pytest.approx([0, 2 / 3 / np.sqrt(2), 1 / 3, 0])


def test_ease_is_the_regression_of_each_item_on_the_others() -> None:
    # Items 0 and 1, each regressed on the other: (sum x_0 x_1) / (sum x^2 + ridge); others are not in the data.
    train = Interactions(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]), np.zeros(4, np.int64), 3, 2)
    past = Interactions(np.array([9]), np.array([0]), np.zeros(1, np.int64), 3, 2)
    assert Ease(2.0).fit(train).score(np.array([9]), past)[0] == pytest.approx([0, 1 / (2 + 2)])


def test_next_item_ridge_is_the_regression_on_the_item_before() -> None:
    # From item 0 (seen three times before a next one): 2 of 3 go to 1, 1 to 2, shrunk by the ridge.
    assert scores_after(NextItemRidge(1.0), 0) == pytest.approx([0, 2 / 4, 1 / 4, 0])


def test_gf_cf_without_its_low_pass_is_the_normalised_co_occurrence() -> None:
    # R~ has 1/sqrt(2 |users of the item|) in each place: item 0 and 1 meet in two people.
    expected = [3 / (2 * 3), 2 / (2 * np.sqrt(3 * 2)), 1 / (2 * np.sqrt(3)), 0]
    assert scores_after(GfCf(0.0, 1), 0) == pytest.approx(expected)


def test_gf_cf_with_all_directions_passes_what_the_training_rows_span() -> None:
    full = np.array(scores_after(GfCf(1.0, 3), 0)) - np.array(scores_after(GfCf(0.0, 3), 0))
    assert full[0] > max(full[1:])


def test_content_knn_is_the_cosine_of_weighted_tokens() -> None:
    model = ContentKnn([["a", "b"], ["a"], ["b"], []])
    rare = np.log(5 / 3)  # each of the two tokens occurs in two of four items
    assert scores_after(model, 1) == pytest.approx([rare * rare / (rare * np.sqrt(2) * rare), 1, 0, 0])
