"""What a cluster-item graph keeps of retrieval, as its size varies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float32
from offline_training.clusters import build_graph, cluster_count, cluster_users
from offline_training.progress import Progress, silent
from online_serving.joining import tastes

SIZE = 50  # of the recall


class GraphQuality(NamedTuple):
    """A graph of `clusters` that are connected to `nearest_items` each and to the items that join them, met by users in
    `active_clusters` clusters each.

    coverage: share of the items that have an edge. edges_per_item: mean over these. read: edges of a user's clusters,
    mean over users. offered: items connected to a user's clusters, seen ones left out, mean over users. reached: share
    of held-out positives among them, mean over users; lift: as many times the share that a random graph of as many
    edges reaches, 1 - (1 - edges / (C I))^K. recall: recall@50 of held-out positives when these items alone are ranked
    by the inner product, mean over users; kept: as a share of the same over all items.
    """

    clusters: int
    nearest_items: int
    active_clusters: int
    coverage: float
    edges_per_item: float
    read: float
    offered: float
    reached: float
    lift: float
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
    nearest_items: Sequence[int],
    active_clusters: Sequence[int],
    seed: int,
    progress: Progress = silent,
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
    for step, count in enumerate(clusters):
        progress(step / len(clusters), f"clustering the users, and connecting {count} clusters")
        if cluster_count(count, len(users), len(items), 1) < count:
            continue
        centroids = cluster_users(users, count, seed)
        nearest = np.argsort(-(asked.vectors @ centroids.T), axis=1, kind="stable")
        for width in nearest_items:
            if width > len(items):
                continue
            graph = build_graph(names, items, tastes(centroids), width)
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
                reached = float(np.mean((offered & positives).sum(axis=1) / positives.sum(axis=1)))
                recall = _recall(offered, positives)
                grid.append(
                    GraphQuality(
                        clusters=count,
                        nearest_items=width,
                        active_clusters=active,
                        coverage=float(np.mean(degree > 0)),
                        edges_per_item=float(degree.sum() / np.count_nonzero(degree)),
                        read=float(connected.sum(axis=1)[nearest[:, :active]].sum(axis=1).mean()),
                        offered=float(offered.sum(axis=1).mean()),
                        reached=reached,
                        lift=reached / (1 - (1 - graph.n_edges / connected.size) ** active),
                        recall=recall,
                        kept=recall / whole if whole else float("nan"),
                    )
                )
    return grid


def _recall(offered: Bool, positives: Bool) -> float:
    """Mean recall@SIZE; both by user and by place in the user's ranking, (n, I)."""
    found = offered & (np.cumsum(offered, axis=1) <= SIZE) & positives
    return float(np.mean(found.sum(axis=1) / positives.sum(axis=1)))
