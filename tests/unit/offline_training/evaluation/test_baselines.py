"""Simple recommenders on a table whose answers can be seen. What all recommenders have in common is tested with the
bench's peers."""

import numpy as np
import pytest

from offline_training.evaluation.baselines import (
    Interactions,
    ItemKnn,
    MostPopular,
    MostPopularLately,
    weighted_past,
)

DAY_MS = 86_400_000
#        user: 0 likes 0, 1; 1 likes 0, 1; 2 likes 2, 3; 3 likes 2 (twice) long ago
TRAIN = Interactions(
    user=np.array([0, 0, 1, 1, 2, 2, 3, 3]),
    item=np.array([0, 1, 1, 0, 2, 3, 2, 2]),
    time=np.array([30, 30, 2, 30, 30, 30, 1, 2]) * DAY_MS,
    users=4,
    items=5,
)
PEOPLE = np.array([0, 2, 4])
PAST = Interactions(np.array([0, 2, 2]), np.array([0, 2, 3]), np.zeros(3, np.int64), 4, 5)


def test_popularity_counts_users() -> None:
    assert MostPopular().fit(TRAIN).score(PEOPLE[:1], PAST).tolist() == [[2, 2, 2, 1, 0]]


def test_recent_popularity_forgets() -> None:
    assert MostPopularLately(7).fit(TRAIN).score(PEOPLE[:1], PAST).tolist() == [[2, 1, 1, 1, 0]]


def test_item_knn_is_the_cosine_of_columns() -> None:
    scores = ItemKnn().fit(TRAIN).score(PEOPLE, PAST)
    assert scores[0] == pytest.approx([0, 1, 0, 0, 0])  # items 0 and 1 are liked by the same two
    half = 1 / np.sqrt(2)  # items 2 and 3 have one user in common, of 2 and 1
    assert scores[1] == pytest.approx([0, 0, half, half, 0])
    assert scores[2] == pytest.approx(np.zeros(5)), "nothing is known of them"
    assert ItemKnn(newest=1).fit(TRAIN).score(PEOPLE, PAST)[1] == pytest.approx([0, 0, half, 0, 0])


def test_the_past_counts_by_its_distance_from_the_end() -> None:
    past = Interactions(np.array([3, 3, 3, 7]), np.array([1, 0, 1, 2]), np.zeros(4, np.int64), 8, 4)
    found = weighted_past(np.array([3, 5, 7]), past, newest=2, decay=0.5)
    assert found.toarray().tolist() == [[0.5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert weighted_past(np.array([3, 7]), past).toarray().tolist() == [[1, 2, 0, 0], [0, 0, 1, 0]]
