"""Which clusters a new item joins."""

import numpy as np
import pytest

from feature_store.graph import Graph
from online_serving.joining import Cutoffs, clusters_for, cutoffs, tastes

CENTROIDS = np.eye(3, dtype=np.float32)


def item(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_cutoffs_by_hand() -> None:
    vectors = np.array([[1, 0, 0], [0.5, 0.5, 0], [-0.2, 0.1, 0]], dtype=np.float32)
    graph = Graph.build(["a", "b", "c"], np.array([0, 1, 1, 2]), np.array([0, 0, 1, 0]), 3)
    beaten = cutoffs(vectors, CENTROIDS, graph, 1)
    assert beaten.nearest.tolist() == [1.0, 0.5, -np.inf]
    np.testing.assert_array_equal(beaten.room, item(-0.2, 0.5, -np.inf))
    assert cutoffs(vectors, CENTROIDS, graph, 2).nearest.tolist() == [0.5, 0.5, -np.inf]
    for before in (cutoffs(vectors, CENTROIDS, graph, None), cutoffs(vectors, CENTROIDS, graph, 9)):
        np.testing.assert_array_equal(before.nearest, beaten.room)
        np.testing.assert_array_equal(before.room, beaten.room)


def test_a_new_item_is_among_the_nearest_of_the_clusters_that_it_beats() -> None:
    beaten = Cutoffs(item(0.5, 0.5, -np.inf), item(0.5, 0.5, -np.inf))
    assert clusters_for(item(0.6, 0.6, 0.1), CENTROIDS, beaten, 5) == [0, 1, 2]
    assert clusters_for(item(0.6, 0.7, 0.1), CENTROIDS, beaten, 1) == [1]


def test_a_new_item_joins_the_nearest_cluster_with_room() -> None:
    beaten = Cutoffs(item(0.9, 0.9, 0.9), item(0.8, 0.3, 0.1))
    assert clusters_for(item(0.7, 0.4, 0.2), CENTROIDS, beaten, 5) == [1]
    assert clusters_for(item(0.5, 0.2, 0.0), CENTROIDS, beaten, 5) == [0], "there is none: the nearest of all"
    assert clusters_for(item(0.7, 0.4, 0.95), CENTROIDS, beaten, 5) == [2]


def test_a_trained_item_would_join_where_training_put_it() -> None:
    beaten = Cutoffs(item(2, 2, 2), item(0.8, 0.3, 0.1))
    barely = item(0.7, 0.31, 0.2)  # the weakest that cluster 1 has room for lies just below
    assert clusters_for(barely, CENTROIDS, beaten, 5) == [1]


def test_popularity_is_apart() -> None:
    centroids = np.array([[0.6, 0.0, 4.0], [0.0, 0.8, 4.1]], dtype=np.float32)
    popular, wanted = item(0.1, 0.0, 0.3), item(0.9, 0.0, 0.0)
    assert centroids[0] @ popular > centroids[0] @ wanted
    assert tastes(centroids)[0] @ popular < tastes(centroids)[0] @ wanted
    assert centroids[:, 2].tolist() == pytest.approx([4.0, 4.1]), "what is served goes on with whole centroids"
