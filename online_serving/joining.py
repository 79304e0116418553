"""Which user clusters a new item joins: those that it would have been connected to in training."""

import numpy as np

from feature_store.arrays import Float32, Int32, Int64

_EDGES_AT_ONCE = 1 << 18


def cluster_thresholds(vectors: Float32, centroids: Float32, item_start: Int64, edge_cluster: Int32) -> Float32:
    """(C,) the smallest <centroid, item vector> among each cluster's edges: what a new item must beat to be connected.

    Minus infinity for a cluster without edges.
    """
    item = np.repeat(np.arange(len(item_start) - 1), np.diff(item_start))
    lowest = np.full(len(centroids), np.inf, dtype=np.float32)
    for first in range(0, len(item), _EDGES_AT_ONCE):
        part = slice(first, first + _EDGES_AT_ONCE)
        scores = np.einsum("ed,ed->e", vectors[item[part]], centroids[edge_cluster[part]])
        np.minimum.at(lowest, edge_cluster[part], scores)
    return np.where(np.isinf(lowest), -np.inf, lowest).astype(np.float32)


def clusters_for(vector: Float32, centroids: Float32, thresholds: Float32, limit: int) -> list[int]:
    """The clusters that a new item joins: those where it beats the weakest edge, the best `limit` of them; at least the
    nearest one, so that every item can be learnt about."""
    scores = centroids @ vector
    order = np.argsort(-scores, kind="stable")
    beaten = order[scores[order] > thresholds[order]][:limit]
    return sorted(beaten.tolist()) if len(beaten) else [int(order[0])]
