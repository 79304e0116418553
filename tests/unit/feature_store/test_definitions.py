"""Features as they are declared."""

import numpy as np
import pytest

from feature_store.arrays import Float32, Float64
from feature_store.definitions import (
    DAY_MS,
    GAP_BUCKETS,
    ITEM_FEATURES,
    RECENT_POPULARITY,
    UNKNOWN_ITEM,
    HistoryEvent,
    at_age,
    gap_buckets,
    kind_of,
    ranker_features,
)

RECENT = ITEM_FEATURES.index(RECENT_POPULARITY)


def test_gaps_are_buckets_of_doubling_seconds() -> None:
    seconds = np.array([100, 100, 100.999, 101.999, 104.999, 111.999, 1e9, 2e9])
    expected = [0, 1, 1, 2, 3, 4, 30, 30]  # 0, 0, 1, 3, 7 s; then 2^29 < 1e9 < 2^30
    assert gap_buckets((seconds * 1000).astype(np.int64)).tolist() == expected
    assert gap_buckets(np.array([[5], [7]])).tolist() == [[0], [0]]
    assert gap_buckets(np.array([0, 2**46])).tolist() == [0, GAP_BUCKETS - 1]
    assert gap_buckets(np.array([9_000, 0])).tolist() == [0, 1], "what stands behind a list's end is no error"


def test_a_kind_says_whether_the_interaction_was_positive() -> None:
    assert [kind_of("rating", positive) for positive in (True, False)] == ["rating+", "rating-"]
    assert [HistoryEvent("i", kind, 0).positive for kind in ("rating+", "c+-", "+")] == [True, False, True]


@pytest.mark.parametrize(("age", "stale"), [(-1, False), (28 * DAY_MS, False), (28 * DAY_MS + 1, True)])
def test_a_stale_feature_reads_as_its_default(age: int, stale: bool) -> None:
    features = np.full((2, len(ITEM_FEATURES)), 7.0, dtype=np.float32)
    expected = features.copy()
    if stale:
        expected[:, RECENT] = UNKNOWN_ITEM[RECENT]
    assert at_age(features, age).tolist() == expected.tolist()
    assert (features == 7).all(), "nobody else's numbers change"


def plain_features(
    user: Float32, history: Float32, clusters: Float32, weights: Float64, items: Float32, item_features: Float32
) -> Float32:
    """ranker_features in NumPy."""
    request = np.zeros((len(items), 8), np.float32)
    request[:, 0] = items @ user
    if len(history):
        similarity = items @ history.T
        request[:, 1], request[:, 2] = similarity.max(axis=1), similarity.mean(axis=1)
        request[:, 3], request[:, 4] = similarity[:, :5].mean(axis=1), np.log1p(len(history))
    nearness = items @ clusters.T
    request[:, 5], request[:, 6], request[:, 7] = nearness.max(axis=1), nearness @ weights, weights.max()
    return np.concatenate([item_features, request, items * user], axis=1)


@pytest.mark.parametrize("length", [0, 1, 3, 5, 6, 50])
@pytest.mark.parametrize("clusters", [1, 4])
def test_the_kernel_of_the_rankers_features_gives_what_plain_numpy_does(length: int, clusters: int) -> None:
    rng = np.random.default_rng(length)

    def drawn(*shape: int) -> Float32:
        return rng.standard_normal(shape).astype(np.float32)

    weights = rng.dirichlet(np.ones(clusters))
    given = drawn(7), drawn(length, 7), drawn(clusters, 7), weights, drawn(9, 7), drawn(9, 4)
    np.testing.assert_allclose(ranker_features(*given), plain_features(*given), rtol=1e-4, atol=1e-5)
    none = (*given[:4], drawn(0, 7), drawn(0, 4))
    assert ranker_features(*none).shape == (0, 19)
