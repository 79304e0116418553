"""What is measured on: a graph of the size that Online Matching reports, and decisions on it."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.graph import Graph
from feature_store.sums import COLUMNS
from infra.benchmarks.large_graph import Size
from streaming.bandit.diag_linucb import Table
from streaming.bandit.prior import Prior

ACTIVE_CLUSTERS = 10
NEW_SHARE = 0.1  # of the items


PAPER = Size(30_000, 100_000)  # 3M edges
SMALL = Size(1_000, 20_000)  # fits a processor's cache


class Choice(NamedTuple):
    """What one decision is made on: the active clusters, their weights, and all items connected to them."""

    clusters: Int64
    weights: Float64
    candidates: Int64
    predicted: Float64


def build_table(graph: Graph, rng: np.random.Generator) -> Table:
    """Random rows for all of the graph."""
    items = rng.random((graph.size, COLUMNS)) + 1
    total = items.sum(axis=0)
    new = rng.random(graph.size) < NEW_SHARE
    return Table(graph.adjacency, rng.random((graph.n_edges, COLUMNS)), items, new, total, Prior.unknown())


def choices(graph: Graph, count: int, rng: np.random.Generator) -> list[Choice]:
    """Decisions of users with ACTIVE_CLUSTERS random clusters."""
    made = []
    for _ in range(count):
        clusters = np.sort(rng.choice(graph.clusters, ACTIVE_CLUSTERS, replace=False))
        candidates = np.unique(np.concatenate([graph.items_of(c) for c in clusters])).astype(np.int64)
        weights = rng.dirichlet(np.full(ACTIVE_CLUSTERS, 5.0))
        made.append(Choice(clusters, weights, candidates, rng.random(len(candidates))))
    return made
