"""Which clusters a new item joins."""

import numpy as np

from online_serving.joining import cluster_thresholds, clusters_for


def test_cluster_choice_by_hand() -> None:
    centroids = np.eye(3, dtype=np.float32)
    vectors = np.array([[1, 0, 0], [0.5, 0.5, 0]], dtype=np.float32)
    start, cluster = np.array([0, 1, 3]), np.array([0, 0, 1], dtype=np.int32)
    thresholds = cluster_thresholds(vectors, centroids, start, cluster)
    assert thresholds.tolist() == [0.5, 0.5, -np.inf]
    assert clusters_for(np.array([0.6, 0.6, 0.1], dtype=np.float32), centroids, thresholds, 5) == [0, 1, 2]
    assert clusters_for(np.array([0.6, 0.7, 0.1], dtype=np.float32), centroids, thresholds, 1) == [1]
    lonely = np.array([0.5, 0.4, 0.0], dtype=np.float32)
    assert clusters_for(lonely, centroids, np.array([1, 1, 1], dtype=np.float32), 5) == [0]
