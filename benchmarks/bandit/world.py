"""What is measured on: a graph of the size that Online Matching reports, and decisions on it."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.graph import Graph
from feature_store.sums import COLUMNS, ITEM, Rows
from streaming.bandit.diag_linucb import Table
from streaming.bandit.prior import Prior

ACTIVE_CLUSTERS = 10
EDGES_PER_CLUSTER = 100


class Size(NamedTuple):
    """How large a graph is."""

    clusters: int
    items: int

    @property
    def edges(self) -> int:
        """Number of edges."""
        return self.clusters * EDGES_PER_CLUSTER


PAPER = Size(30_000, 100_000)  # 3M edges
SMALL = Size(1_000, 20_000)  # fits a processor's cache


class Choice(NamedTuple):
    """What one decision is made on: the active clusters, their weights, and all items connected to them."""

    clusters: Int64
    weights: Float64
    candidates: Int64
    predicted: Float64


def build_graph(size: Size, rng: np.random.Generator) -> Graph:
    """Every cluster connected to EDGES_PER_CLUSTER different items, spread over all of them."""
    steps = rng.integers(1, size.items // EDGES_PER_CLUSTER, (size.clusters, EDGES_PER_CLUSTER))
    item = ((rng.integers(size.items, size=(size.clusters, 1)) + np.cumsum(steps, axis=1)) % size.items).ravel()
    cluster = np.repeat(np.arange(size.clusters), EDGES_PER_CLUSTER)
    return Graph.build([f"item-{j:07d}" for j in range(size.items)], item, cluster, size.clusters)


def build_table(graph: Graph, rng: np.random.Generator) -> Table:
    """Random rows for all of the graph."""
    items = rng.random((graph.size, COLUMNS)) + 1
    total = items.sum(axis=0)
    return Table(graph.adjacency, rng.random((graph.n_edges, COLUMNS)), items, total, Prior.unknown(graph.clusters))


def all_rows(graph: Graph, rng: np.random.Generator) -> Rows:
    """A random row for every edge and item, item after item, clusters ascending within an item."""
    degrees = np.diff(graph.item_start)
    item = np.repeat(np.arange(len(degrees), dtype=np.int32), degrees + 1)
    cluster = np.insert(graph.edge_cluster, graph.item_start[:-1], ITEM)
    return Rows(graph.items, item, cluster, rng.random((len(item), COLUMNS)))


def choices(graph: Graph, count: int, rng: np.random.Generator) -> list[Choice]:
    """Decisions of users with ACTIVE_CLUSTERS random clusters."""
    made = []
    for _ in range(count):
        clusters = np.sort(rng.choice(graph.clusters, ACTIVE_CLUSTERS, replace=False))
        candidates = np.unique(np.concatenate([graph.items_of(c) for c in clusters])).astype(np.int64)
        weights = rng.dirichlet(np.full(ACTIVE_CLUSTERS, 5.0))
        made.append(Choice(clusters, weights, candidates, rng.random(len(candidates))))
    return made
