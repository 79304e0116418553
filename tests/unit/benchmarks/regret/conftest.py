"""A small world with every kind of trouble: arriving items, missing edges, noise."""

import numpy as np
import pytest

from benchmarks.regret.world import Environment


@pytest.fixture
def world() -> Environment:
    """5 users, 6 items, 4 clusters of which 2 are active. Items 4 and 5 arrive in rounds 30 and 60; item 3 has no edge
    to cluster 0; nobody can be shown item 2 but user 0."""
    rng = np.random.default_rng(1)
    clusters = np.array([[0, 1], [1, 2], [0, 3], [2, 3], [1, 3]])
    first = rng.uniform(0.2, 0.8, 5)
    edges = [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    menus = [[0, 1, 2, 3, 4, 5]] + [[0, 1, 3, 4, 5]] * 4
    return Environment(
        clusters=clusters,
        weights=np.stack([first, 1 - first], axis=1),
        cluster_count=4,
        reward=rng.uniform(0.1, 0.9, (5, 6)).astype(np.float32),
        predicted=rng.uniform(0.1, 0.9, (5, 6)).astype(np.float32),
        arrival=np.array([0, 0, 0, 0, 30, 60]),
        item_start=np.cumsum([0] + [len(row) for row in edges]),
        edge_cluster=np.concatenate(edges).astype(np.int32),
        menu_start=np.cumsum([0] + [len(menu) for menu in menus]),
        menu=np.concatenate(menus),
        noisy=True,
        once=False,
    )
