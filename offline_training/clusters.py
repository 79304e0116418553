"""User clusters and the cluster->item graph, made from the towers' vectors."""

import faiss
import numpy as np

from feature_store.arrays import Float32, Int64
from feature_store.graph import Graph
from offline_training.fitting import THREADS

USERS_PER_CLUSTER = 10  # at least, so that a cluster is a group of people
EDGES_PER_ITEM = 4
MAX_CLUSTERS = 30_000  # as many as Online Matching reports: the user's are looked for among all of them
_ITERATIONS = 20
_BLOCK = 1024


def cluster_count(wanted: int | None, users: int, items: int, edges_per_cluster: int) -> int:
    """How many clusters a graph has: those wanted, or as many as make EDGES_PER_ITEM edges for every item on average
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
    """Edge (c, j) exists iff item j is among the `edges_per_cluster` items of the largest inner product with centroid c
    (Online Matching, Yi et al. 2023, section 4). vectors (I, d) in the order of items, centroids (C, d)."""
    width = min(edges_per_cluster, len(items))
    nearest = [
        np.argpartition(-(centroids[start : start + _BLOCK] @ vectors.T), width - 1, axis=1)[:, :width]
        for start in range(0, len(centroids), _BLOCK)
    ]
    item = np.concatenate(nearest).ravel().astype(np.int64)
    return Graph.build(items, item, np.repeat(np.arange(len(centroids)), width), len(centroids))


def unit(vectors: Float32) -> Float32:
    """Rows scaled to length 1; a zero row points along the first axis."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    safe = np.where(length > 1e-12, vectors, np.eye(1, vectors.shape[1]))
    result: Float32 = (safe / np.maximum(np.linalg.norm(safe, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return result
