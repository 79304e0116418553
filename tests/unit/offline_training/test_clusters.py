"""Clusters and graph from vectors whose structure is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_training.clusters import (
    build_graph,
    cluster_count,
    cluster_users,
    joined_clusters,
    nearest_cluster,
    nearest_items,
    unit,
)


def corners(count: int, spread: float = 0.05) -> np.ndarray:
    """Unit vectors around the first three axes, in turn."""
    noise = np.random.default_rng(0).normal(scale=spread, size=(count, 4))
    return unit((np.eye(4)[np.arange(count) % 3] + noise).astype(np.float32))


def test_clusters_are_the_groups_and_have_unit_centroids() -> None:
    centroids = cluster_users(corners(90), 3, seed=0)
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    groups = nearest_cluster(corners(90), centroids).reshape(-1, 3)
    assert (groups == groups[0]).all()
    assert sorted(groups[0]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("wanted", "users", "items", "count"),
    [
        (None, 943, 1_682, 68),  # 4 x 1,682 edges, 100 a cluster, rounded up
        (None, 10**9, 1_000_000, 30_000),
        (None, 200, 1_000_000, 20),
        (None, 10**9, 10, 1),
        (64, 10**9, 10, 64),
        (64, 19, 10**9, 1),
        (64, 0, 10**9, 1),
    ],
)
def test_the_number_of_clusters(wanted: int | None, users: int, items: int, count: int) -> None:
    assert cluster_count(wanted, users, items, edges_per_cluster=100) == count


def test_users_who_are_all_alike_make_finite_clusters() -> None:
    centroids = cluster_users(np.tile(corners(1), (50, 1)), 5, seed=0)
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_edges_by_hand() -> None:
    items = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)
    centroids = np.array([[1, 0], [0, 1]], dtype=np.float32)
    graph = build_graph(["a", "b", "c", "d"], items, centroids, 2)
    # Nearest: a and b, b and c. Each has room for two: a and c come first, then b, and d finds room in its nearest, 1.
    assert [sorted(graph.items_of(cluster)) for cluster in range(2)] == [[0, 1], [1, 2, 3]]
    crowded = build_graph(["a", "b", "c", "d"], np.array([[1, 0], [0.9, 0], [0.8, 0], [0.7, 0.1]]), centroids, 1)
    # All would rather join cluster 0, which keeps the nearest two; of the others d is the nearest of cluster 1, too.
    assert [sorted(crowded.items_of(cluster)) for cluster in range(2)] == [[0, 1], [2, 3]]
    assert build_graph(["a"], items[:1], items[:2], 100).n_edges == 2, "no more edges than items"


@given(
    st.integers(1, 60), st.integers(1, 12), st.integers(1, 20), st.integers(2, 4), st.booleans(), st.integers(0, 2**16)
)
def test_every_item_has_an_edge_and_no_cluster_too_many(
    items: int, clusters: int, width: int, d: int, alike: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, d)).astype(np.float32)
    if alike:
        vectors[:] = vectors[0]
    centroids = unit(rng.normal(size=(clusters, d)).astype(np.float32))
    graph = build_graph([str(item) for item in range(items)], vectors, centroids, width)
    assert np.diff(graph.item_start).min() >= 1
    assert max(len(graph.items_of(cluster)) for cluster in range(clusters)) <= width + -(-items // clusters)
    nearest = nearest_items(vectors, centroids, width)
    assert all(set(nearest[cluster]) <= set(graph.items_of(cluster)) for cluster in range(clusters))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 2**16))
def test_where_an_item_would_rather_be_there_is_no_room(items: int, clusters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, centroids = (rng.normal(size=(n, 3)).astype(np.float32) for n in (items, clusters))
    room = -(-items // clusters)
    home = joined_clusters(vectors, centroids, room)
    score = vectors @ centroids.T
    for item in range(items):
        for cluster in np.flatnonzero(score[item] > score[item, home[item]]):
            there = np.flatnonzero(home == cluster)
            assert len(there) == room
            assert score[there, cluster].min() >= score[item, cluster]


def test_items_that_all_their_choices_turn_away_find_room_elsewhere() -> None:
    centroids = unit(np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32))
    home = joined_clusters(np.tile(centroids[0], (200, 1)), centroids, 2)
    assert np.bincount(home, minlength=100).tolist() == [2] * 100


def test_a_zero_vector_gets_a_direction() -> None:
    assert unit(np.array([[0, 0], [3, 4]], dtype=np.float32)).ravel() == pytest.approx([1, 0, 0.6, 0.8])
