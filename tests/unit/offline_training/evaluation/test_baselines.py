"""One suite for all baselines, on a table whose answers can be seen."""

import numpy as np
import pytest

from offline_training.evaluation.baselines import Baseline, ItemKnn, Popularity, Positives, RecentPopularity

DAY_MS = 86_400_000
#        user: 0 likes 0, 1; 1 likes 0, 1; 2 likes 2, 3; 3 likes 2 (twice) long ago
POSITIVES = Positives(
    user=np.array([0, 0, 1, 1, 2, 2, 3, 3]),
    item=np.array([0, 1, 0, 1, 2, 3, 2, 2]),
    time=np.array([30, 30, 30, 2, 30, 30, 1, 2]) * DAY_MS,
    users=4,
    items=5,
)


@pytest.mark.parametrize("baseline", [Popularity(), RecentPopularity(7), ItemKnn(), ItemKnn(neighbours=1)])
def test_scores_every_item_for_every_user(baseline: Baseline) -> None:
    scores = baseline.fit(POSITIVES).score([np.array([0]), np.array([], dtype=np.int64), np.array([2, 3])])
    assert scores.shape == (3, 5)
    assert np.isfinite(scores).all()
    assert (scores[:, 4] == scores.min(axis=1)).all(), "nobody likes item 4"


def test_popularity_counts_users() -> None:
    assert Popularity().fit(POSITIVES).score([np.array([0])]).tolist() == [[2, 2, 2, 1, 0]]


def test_recent_popularity_forgets() -> None:
    assert RecentPopularity(7).fit(POSITIVES).score([np.array([0])]).tolist() == [[2, 1, 1, 1, 0]]


def test_item_knn_is_the_cosine_of_columns() -> None:
    scores = ItemKnn().fit(POSITIVES).score([np.array([0]), np.array([2, 3]), np.array([3])])
    assert scores[0] == pytest.approx([0, 1, 0, 0, 0])  # items 0 and 1 are liked by the same two
    assert scores[2] == pytest.approx([0, 0, 1 / np.sqrt(2), 0, 0])  # one user in common, of 2 and 1
    assert scores[1] == pytest.approx([0, 0, 1 / np.sqrt(2), 1 / np.sqrt(2), 0])
