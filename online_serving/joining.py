"""Which user clusters a new item joins: those that it would have been connected to in training."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float32
from feature_store.graph import Graph


def tastes(centroids: Float32) -> Float32:
    """Centroids (C, d) with zeros for their last coordinate, which is not taste but how much popularity weighs
    (offline_training/retrieval/two_tower.py): an inner product of one with an item's vector compares tastes alone. With
    it, the most popular items would be the nearest of every cluster."""
    without = centroids.copy()
    without[:, -1] = 0.0
    return without


class Cutoffs(NamedTuple):
    """By cluster, (C,): the <centroid, item vector> that a new item must beat to be among the cluster's nearest, and to
    find room in it; minus infinity for a cluster without edges."""

    nearest: Float32
    room: Float32


def cutoffs(vectors: Float32, centroids: Float32, graph: Graph, nearest: int | None) -> Cutoffs:
    """What the weakest of the `nearest` best edges of each cluster has, and the weakest of all.

    nearest: how many items training connected to each cluster because they are near it; the others joined it, for want
    of a nearer one with room. None: all of them are of the first kind.
    """
    start, items = graph.adjacency.start.tolist(), graph.adjacency.items
    found = Cutoffs(*np.full((2, len(centroids)), -np.inf, dtype=np.float32))
    for cluster, centroid in enumerate(centroids):
        scores = vectors[items[start[cluster] : start[cluster + 1]]] @ centroid
        if len(scores):
            first = max(0, len(scores) - nearest) if nearest is not None else 0
            found.nearest[cluster] = np.partition(scores, first)[first]
            found.room[cluster] = scores.min()
    return found


def clusters_for(vector: Float32, centroids: Float32, beaten: Cutoffs, limit: int) -> list[int]:
    """The clusters that a new item joins: those whose nearest items it belongs to, the best `limit` of them, and the
    nearest one that has room for it. Where there is none it is the nearest of all, so that every item can be learnt
    about."""
    scores = centroids @ vector
    order = np.argsort(-scores, kind="stable")
    near = order[scores[order] > beaten.nearest[order]][:limit]
    with_room = order[scores[order] > beaten.room[order]]
    return sorted({*near.tolist(), int(with_room[0] if len(with_room) else order[0])})
