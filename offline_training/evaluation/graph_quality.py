"""What a cluster-item graph keeps of retrieval, as its size varies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float32, Int64
from offline_training.clusters import build_graph, cluster_count, cluster_users
from offline_training.progress import Progress, silent

SIZE = 50  # of the recall


class GraphQuality(NamedTuple):
    """A graph of `clusters` times `edges_per_cluster` edges, met by users in `active_clusters` clusters each.

    coverage: share of the items that have an edge. edges_per_item: mean over these. offered: items connected to a
    user's clusters, seen ones left out, mean over users. hit: share of a user's held-out positives that are connected
    to one of their clusters, mean over users; by_chance: the same if every cluster had as many edges to items drawn at
    random, in expectation. recall: recall@50 of held-out positives when connected items alone are ranked by the inner
    product, mean over users; kept: as a share of the same over all items.
    """

    clusters: int
    edges_per_cluster: int
    active_clusters: int
    coverage: float
    edges_per_item: float
    offered: float
    hit: float
    by_chance: float
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
    progress: Progress = silent,
) -> list[GraphQuality]:
    """Every combination of the sizes, in order, but those that ask for more than there is: clusters for so many users,
    items, active ones among the clusters. items (I, d); users (U, d): whom the clusters are made of. active_clusters:
    ascending."""
    scores = np.where(asked.seen, -np.inf, asked.vectors @ items.T)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = _Ranked(order, *(np.take_along_axis(rows, order, axis=1) for rows in (~asked.seen, asked.positives)))
    whole = ranked.recall(np.ones_like(asked.seen))
    names = [str(item) for item in range(len(items))]
    fitting = [count for count in clusters if cluster_count(count, len(users), len(items), 1) >= count]
    widths = [width for width in edges_per_cluster if width <= len(items)]
    grid: list[GraphQuality] = []
    for place, count in enumerate(fitting):
        centroids = cluster_users(users, count, seed)
        nearest = np.argsort(-(asked.vectors @ centroids.T), axis=1, kind="stable")
        for step, width in enumerate(widths):
            progress((place + step / len(widths)) / len(fitting), f"{count} clusters of {width} edges")
            graph = build_graph(names, items, centroids, width)
            connected = np.zeros((count, len(items)), np.bool_)
            for cluster in range(count):
                connected[cluster, graph.items_of(cluster)] = True
            degree, missed = connected.sum(axis=0), 1 - connected.mean(axis=1)
            offered, taken = np.zeros_like(asked.seen), 0
            for active in active_clusters:
                if active > count:
                    continue
                for k in range(taken, active):
                    offered |= connected[nearest[:, k]]
                taken = active
                recall = ranked.recall(offered)
                grid.append(
                    GraphQuality(
                        clusters=count,
                        edges_per_cluster=width,
                        active_clusters=active,
                        coverage=float(np.mean(degree > 0)),
                        edges_per_item=float(degree.sum() / np.count_nonzero(degree)),
                        offered=float((offered & ~asked.seen).sum(axis=1).mean()),
                        hit=_share(offered & asked.positives, asked.positives),
                        by_chance=float(np.mean(1 - np.prod(missed[nearest[:, :active]], axis=1))),
                        recall=recall,
                        kept=recall / whole if whole else float("nan"),
                    )
                )
    return grid


class _Ranked(NamedTuple):
    """Items by place in each user's ranking, all (n, I): which one, whether it is to be ranked, whether it is held
    out."""

    order: Int64
    unseen: Bool
    positives: Bool

    def recall(self, offered: Bool) -> float:
        """Mean recall@SIZE when only offered (n, I) items, by number, are ranked."""
        listed = np.take_along_axis(offered, self.order, axis=1) & self.unseen
        return _share(listed & (np.cumsum(listed, axis=1, dtype=np.int32) <= SIZE) & self.positives, self.positives)


def _share(found: Bool, positives: Bool) -> float:
    """Mean over users of the share of their positives that is found; both (n, I)."""
    return float(np.mean(found.sum(axis=1) / positives.sum(axis=1)))
