"""The prior against an additive world that it must recover, and the laws of a fit to sums."""

import numpy as np
import pytest

from feature_store.arrays import Float64
from feature_store.graph import Graph
from feature_store.sums import COLUMNS, N
from streaming.bandit.prior import Prior, fit

CLUSTERS, ITEMS = 6, 8
LITTLE = 1e-6  # a prior of so few trials leaves the data alone


class World:
    """Trials with their sums, added up here one by one."""

    def __init__(
        self, seed: int, trials: int, edge_deviation: float, *, levels: float = 0.1, appended: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.item = rng.normal(0, levels, ITEMS)
        self.cluster = rng.normal(0, levels, CLUSTERS)
        edge = rng.normal(0, edge_deviation, (ITEMS, CLUSTERS))
        built = ITEMS - appended
        graph = Graph.build(
            [str(j) for j in range(built)], np.repeat(np.arange(built), CLUSTERS),
            np.tile(np.arange(CLUSTERS), built), CLUSTERS,
        )  # fmt: skip
        self.graph = graph.with_items([str(j) for j in range(built, ITEMS)], [range(CLUSTERS)] * appended)
        self.edges, self.items = np.zeros((ITEMS * CLUSTERS, COLUMNS)), np.zeros((ITEMS, COLUMNS))
        # Not every cluster sees every item as often: a mean over an item's trials says little about the item.
        taste = rng.dirichlet(np.full(ITEMS, 0.5), CLUSTERS)
        for _ in range(trials):
            first = int(rng.integers(CLUSTERS))
            active = [(first, 0.7), ((first + 1) % CLUSTERS, 0.3)]
            j, p = rng.choice(ITEMS, p=taste[first]), rng.uniform(0.3, 0.7)
            r = p + self.item[j] + sum(w * (self.cluster[c] + edge[j, c]) for c, w in active) + rng.normal(0, 0.02)
            self.items[j] += [1, 1, r, r * r, p]
            for c, w in active:
                self.edges[self.graph.row(c, j)] += [w * w, w * w, w, w * r, w * p]

    def fit(self, item_prior: float = LITTLE, cluster_prior: float = LITTLE) -> Prior:
        return fit(self.graph.adjacency, self.edges, self.items, self.items.sum(axis=0), item_prior, cluster_prior)

    def levels(self, prior: Prior) -> Float64:
        items = self.items
        levels: Float64 = (items[:, 2] - items[:, 4]) / items[:, N] - prior.base
        return levels


@pytest.mark.parametrize("appended", [0, 3])
def test_it_tells_what_items_are_worth_from_what_their_users_give(appended: int) -> None:
    world = World(1, 6_000, edge_deviation=0.0, appended=appended)
    prior = world.fit()
    given = world.cluster - world.cluster.mean()
    assert np.abs(prior.cluster - prior.cluster.mean() - given).max() < 0.06
    naive = (world.items[:, 2] - world.items[:, 4]) / world.items[:, N]
    wanted = world.item - world.item.mean()
    error = np.abs(world.levels(prior) - world.levels(prior).mean() - wanted).max()
    assert error < 0.05
    assert error < 0.5 * np.abs(naive - naive.mean() - wanted).max()


def test_the_general_level_is_the_items_not_the_trials() -> None:
    # one item that everybody is shown, rewarded by one more than predicted; three as predicted
    graph = Graph.build(list("abcd"), np.arange(4), np.zeros(4, np.int64), 1)
    items = np.array([[900, 900, 900, 900, 0]] + 3 * [[30, 30, 0, 0, 0]], dtype=float)
    edges = np.zeros((4, COLUMNS))
    prior = fit(graph.adjacency, edges, items, items.sum(axis=0), LITTLE, LITTLE)
    assert prior.general == pytest.approx(1 / (4 + 1))  # and one item as predicted, of which we know beforehand


def test_edges_that_differ_more_are_trusted_more() -> None:
    alike = World(2, 3_000, edge_deviation=0.0005, levels=0.0).fit()
    different = World(2, 3_000, edge_deviation=0.5, levels=0.0).fit()
    assert 0.01 <= different.edge < alike.edge <= 30


def test_items_that_differ_more_are_trusted_more_and_none_more_than_the_setting_says() -> None:
    alike, different = (
        World(5, 2_000, edge_deviation=0.0, levels=0.002),
        World(5, 2_000, edge_deviation=0.0, levels=1.0),
    )
    assert different.fit(item_prior=3.0).item < alike.fit(item_prior=3.0).item <= 100
    assert different.fit(item_prior=3.0).item == 3.0


def test_strong_priors_leave_nothing_to_clusters() -> None:
    prior = World(3, 500, edge_deviation=0.1).fit(cluster_prior=1e9)
    assert np.abs(prior.cluster).max() < 1e-5
    assert np.abs(prior.base).max() < 1e-5


def test_it_is_a_function_of_the_sums() -> None:
    world = World(4, 300, edge_deviation=0.1)
    once, again = world.fit(3.0, 10.0), world.fit(3.0, 10.0)
    assert once.edge == again.edge
    assert once.general == again.general
    assert once.cluster.tolist() == again.cluster.tolist()
    assert once.base.tolist() == again.base.tolist()


def test_nothing_seen_says_nothing() -> None:
    graph = Graph.build(["a"], np.array([0]), np.array([0]), 1)
    prior = fit(graph.adjacency, np.zeros((1, COLUMNS)), np.zeros((1, COLUMNS)), np.zeros(COLUMNS), 3.0, 10.0)
    assert (prior.general, prior.cluster.tolist(), prior.base.tolist()) == (0.0, [0.0], [0.0])
    assert np.isfinite(prior.edge)


def test_a_prior_is_fitted_in_trials_of_now() -> None:
    """Sums in another unit are the same trials."""
    world = World(2, 3_000, edge_deviation=0.005)
    once, graph, k = world.fit(3.0, 10.0), world.graph, 7.5
    again = fit(graph.adjacency, k * world.edges, k * world.items, k * world.items.sum(axis=0), 3.0, 10.0, k)
    assert 0.01 < once.edge < 30, "at neither bound"
    assert again.edge == pytest.approx(once.edge)
    assert again.general == pytest.approx(once.general)
    assert again.cluster == pytest.approx(once.cluster)
    assert again.base == pytest.approx(once.base)
