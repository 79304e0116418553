"""What a cluster-item graph keeps of retrieval, as its size varies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float32
from offline_training.clusters import build_graph, cluster_count, cluster_users

SIZE = 50  # of the recall


class GraphQuality(NamedTuple):
    """A graph of `clusters` times `edges_per_cluster` edges, met by users in `active_clusters` clusters each.

    coverage: share of the items that have an edge. edges_per_item: mean over these. offered: items connected to a
    user's clusters, seen ones left out, mean over users. recall: recall@50 of held-out positives when these items
    alone are ranked by the inner product, mean over users; kept: as a share of the same over all items.
    """

    clusters: int
    edges_per_cluster: int
    active_clusters: int
    coverage: float
    edges_per_item: float
    offered: float
    recall: float
    kept: float


class Asked(NamedTuple):
    """Held-out users: vectors (n, d), and by user and item, (n, I), what they saw before and liked afterwards."""

    vectors: Float32
    seen: Bool
    positives: Bool


def graph_grid(
    items: Float32,
    users: Float32,
    asked: Asked,
    clusters: Sequence[int],
    edges_per_cluster: Sequence[int],
    active_clusters: Sequence[int],
    seed: int,
) -> list[GraphQuality]:
    """Every combination of the sizes, in order, but those that ask for more than there is: clusters for so many users,
    items, active ones among the clusters. items (I, d); users (U, d): whom the clusters are made of."""
    rows = np.arange(len(asked.vectors))[:, None]
    scores = np.where(asked.seen, -np.inf, asked.vectors @ items.T)
    order = np.argsort(-scores, axis=1, kind="stable")
    unseen, positives = ~asked.seen[rows, order], asked.positives[rows, order]
    whole = _recall(unseen, positives)
    names = [str(item) for item in range(len(items))]
    grid = []
    for count in clusters:
        if cluster_count(count, len(users), len(items), 1) < count:
            continue
        centroids = cluster_users(users, count, seed)
        nearest = np.argsort(-(asked.vectors @ centroids.T), axis=1, kind="stable")
        for width in edges_per_cluster:
            if width > len(items):
                continue
            graph = build_graph(names, items, centroids, width)
            connected = np.zeros((count, len(items)), np.bool_)
            for cluster in range(count):
                connected[cluster, graph.items_of(cluster)] = True
            degree = connected.sum(axis=0)
            for active in active_clusters:
                if active > count:
                    continue
                offered = np.zeros((len(rows), len(items)), np.bool_)
                for k in range(active):
                    offered |= connected[nearest[:, k]]
                offered = offered[rows, order] & unseen
                recall = _recall(offered, positives)
                grid.append(
                    GraphQuality(
                        clusters=count,
                        edges_per_cluster=width,
                        active_clusters=active,
                        coverage=float(np.mean(degree > 0)),
                        edges_per_item=float(degree.sum() / np.count_nonzero(degree)),
                        offered=float(offered.sum(axis=1).mean()),
                        recall=recall,
                        kept=recall / whole if whole else float("nan"),
                    )
                )
    return grid


def _recall(offered: Bool, positives: Bool) -> float:
    """Mean recall@SIZE; both by user and by place in the user's ranking, (n, I)."""
    found = offered & (np.cumsum(offered, axis=1) <= SIZE) & positives
    return float(np.mean(found.sum(axis=1) / positives.sum(axis=1)))
