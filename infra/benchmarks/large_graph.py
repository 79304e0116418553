"""Generated graphs as large as one likes, with a row of sums for every edge and item."""

from typing import NamedTuple

import numpy as np

from feature_store.graph import Graph
from feature_store.sums import COLUMNS, ITEM, Rows

EDGES_PER_CLUSTER = 100


class Size(NamedTuple):
    """How large a graph is."""

    clusters: int
    items: int

    @property
    def edges(self) -> int:
        """Number of edges."""
        return self.clusters * EDGES_PER_CLUSTER


def build_graph(size: Size, rng: np.random.Generator) -> Graph:
    """Every cluster connected to EDGES_PER_CLUSTER different items, spread over all of them."""
    steps = rng.integers(1, size.items // EDGES_PER_CLUSTER, (size.clusters, EDGES_PER_CLUSTER))
    item = ((rng.integers(size.items, size=(size.clusters, 1)) + np.cumsum(steps, axis=1)) % size.items).ravel()
    cluster = np.repeat(np.arange(size.clusters), EDGES_PER_CLUSTER)
    return Graph.build([f"item-{j:07d}" for j in range(size.items)], item, cluster, size.clusters)


def all_rows(graph: Graph, rng: np.random.Generator) -> Rows:
    """A random row for every edge and item, item after item, clusters ascending within an item."""
    degrees = np.diff(graph.item_start)
    item = np.repeat(np.arange(len(degrees), dtype=np.int32), degrees + 1)
    cluster = np.insert(graph.edge_cluster, graph.item_start[:-1], ITEM)
    return Rows(graph.items, item, cluster, rng.random((len(item), COLUMNS)))
