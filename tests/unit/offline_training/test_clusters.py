"""Clusters and graph from vectors whose structure is known."""

import numpy as np
import pytest

from offline_training.clusters import (
    build_graph,
    cluster_count,
    cluster_users,
    nearest_cluster,
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


def test_edges_are_the_items_of_the_largest_inner_product() -> None:
    items = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)
    graph = build_graph(["a", "b", "c", "d"], items, np.array([[1, 0], [0, 1]], dtype=np.float32), 2)
    assert [sorted(graph.items_of(cluster)) for cluster in range(2)] == [[0, 1], [1, 2]]
    assert graph.n_edges == 4
    assert build_graph(["a"], items[:1], items[:2], 100).n_edges == 2, "no more edges than items"


def test_a_zero_vector_gets_a_direction() -> None:
    assert unit(np.array([[0, 0], [3, 4]], dtype=np.float32)).ravel() == pytest.approx([1, 0, 0.6, 0.8])
