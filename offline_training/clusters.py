"""User clusters and the cluster->item graph, made from the towers' vectors."""

import faiss
import numba
import numpy as np

from feature_store.arrays import Float32, Int64
from feature_store.graph import Graph
from offline_training.fitting import THREADS

USERS_PER_CLUSTER = 10  # at least, so that a cluster is a group of people
EDGES_PER_ITEM = 4
MAX_CLUSTERS = 30_000  # as many as Online Matching reports: the user's are looked for among all of them
_ITERATIONS = 20
_BLOCK = 1024
_CHOICES = 32  # nearest clusters that an item looks at before it asks which have room


def cluster_count(wanted: int | None, users: int, items: int, edges_per_cluster: int) -> int:
    """How many clusters a graph has: those wanted, or as many as are near to an item EDGES_PER_ITEM times on average
    (infra/decisions/graph-size.md), MAX_CLUSTERS at most; one for every USERS_PER_CLUSTER users at most."""
    by_items = min(-(-EDGES_PER_ITEM * items // edges_per_cluster), MAX_CLUSTERS)
    return max(1, min(by_items if wanted is None else wanted, users // USERS_PER_CLUSTER))


def cluster_users(vectors: Float32, count: int, seed: int) -> Float32:
    """Spherical k-means: L2-normalised centroids (count, d) of user vectors (U, d), U >= count.

    Points are sampled above 256 for each centroid.
    """
    points = np.ascontiguousarray(vectors, dtype=np.float32)
    faiss.omp_set_num_threads(THREADS)
    kmeans = faiss.Kmeans(
        points.shape[1],
        count,
        niter=_ITERATIONS,
        seed=seed + 1,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    kmeans.train(points)
    return unit(np.asarray(kmeans.centroids, dtype=np.float32))


def nearest_cluster(vectors: Float32, centroids: Float32) -> Int64:
    """The cluster (n,) of the largest inner product with each vector (n, d)."""
    nearest: Int64 = np.argmax(vectors @ centroids.T, axis=1).astype(np.int64)
    return nearest


def build_graph(items: list[str], vectors: Float32, centroids: Float32, edges_per_cluster: int) -> Graph:
    """Each cluster is connected to its nearest items, and each item joins one cluster that has room, so that none is
    without an edge (infra/decisions/graph-size.md). vectors (I, d) in the order of items, centroids (C, d).

    A cluster has at most edges_per_cluster + ceil(I / C) edges, an item at most C.
    """
    nearest = nearest_items(vectors, centroids, edges_per_cluster)
    home = joined_clusters(vectors, centroids, -(-len(items) // len(centroids)))
    count = len(centroids)
    pairs = np.union1d((nearest * count + np.arange(count)[:, None]).ravel(), np.arange(len(items)) * count + home)
    return Graph.build(items, pairs // count, pairs % count, count)


def nearest_items(vectors: Float32, centroids: Float32, count: int) -> Int64:
    """(C, count) the items (I, d) of the largest inner product with each centroid (C, d) (Online Matching, Yi et al.
    2023, section 4), in no order; all of them if there are fewer."""
    width = min(count, len(vectors))
    nearest = [
        np.argpartition(-(centroids[start : start + _BLOCK] @ vectors.T), width - 1, axis=1)[:, :width]
        for start in range(0, len(centroids), _BLOCK)
    ]
    return np.concatenate(nearest).astype(np.int64)


def joined_clusters(vectors: Float32, centroids: Float32, room: int) -> Int64:
    """(I,) the cluster that each item joins: the nearest one that has room when its turn comes, `room` items to each
    cluster, room C >= I. The pair of the largest inner product comes first.

    This is the stable matching of items and clusters that prefer whom they are near to (Gale and Shapley 1962): where
    an item would rather be, all are at least as near as it is. An item looks at its _CHOICES nearest clusters; those
    that are turned away by all of these look again among the clusters that have room left.
    """
    home = np.full(len(vectors), -1)
    left = np.full(len(centroids), room)
    while len(waiting := np.flatnonzero(home < 0)):
        with_room = np.flatnonzero(left)
        width = min(_CHOICES, len(with_room))
        score = np.empty((len(waiting), width), np.float32)
        cluster = np.empty((len(waiting), width), np.int64)
        for start in range(0, len(waiting), _BLOCK):
            rows = slice(start, start + _BLOCK)
            scores = vectors[waiting[rows]] @ centroids[with_room].T
            best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
            score[rows], cluster[rows] = np.take_along_axis(scores, best, axis=1), with_room[best]
        order = np.argsort(-score, axis=None, kind="stable")
        _seat(waiting[order // width], cluster.ravel()[order], home, left)
    return home


@numba.njit(cache=True)
def _seat(item, cluster, home, left):  # type: ignore[no-untyped-def]  # numba infers the types
    """Goes through pairs of an item and a cluster, best first: fills home (I,) and what is left of the rooms (C,)."""
    for k in range(len(item)):
        if home[item[k]] < 0 and left[cluster[k]] > 0:
            home[item[k]] = cluster[k]
            left[cluster[k]] -= 1


def unit(vectors: Float32) -> Float32:
    """Rows scaled to length 1; a zero row points along the first axis."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    safe = np.where(length > 1e-12, vectors, np.eye(1, vectors.shape[1]))
    result: Float32 = (safe / np.maximum(np.linalg.norm(safe, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return result
