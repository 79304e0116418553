"""Diag-LinUCB: hand-worked numbers, the laws of each form, and the kernel against its plain form."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency, Graph
from feature_store.sums import PREDICTED, REWARD, SERVED, B, D, F, N, S
from streaming.bandit.diag_linucb import Estimate, Table, context, reward_deviation, score
from streaming.bandit.prior import Prior
from streaming.settings import BanditSettings, ScoreForm

PUBLISHED = BanditSettings(form=ScoreForm.PUBLISHED, alpha=1.5, edge_prior=0.25)
RESIDUAL = BanditSettings(form=ScoreForm.RESIDUAL, alpha=2.0, edge_prior=1.0, item_prior=1.0)


def _table(graph: Graph, edges: np.ndarray, items: np.ndarray, prior: Prior | None = None) -> Table:
    return Table(graph.adjacency, edges, items, items.sum(axis=0), prior or Prior.unknown(graph.clusters))


def _one_item(edge: Sequence[float], item: Sequence[float], prior: Prior | None = None) -> Table:
    graph = Graph.build(["a"], np.array([0]), np.array([0]), clusters=1)
    return _table(graph, np.array([edge], dtype=float), np.array([item], dtype=float), prior)


CLUSTER, WEIGHT, CANDIDATE = np.array([0]), np.array([1.0]), np.array([0])


def test_published_cold_bonus_is_alpha_over_root_of_the_prior() -> None:
    estimate = score(PUBLISHED, CLUSTER, WEIGHT, CANDIDATE, np.array([0.7]), _one_item([0] * 5, [0] * 5))
    assert estimate.bonus[0] == pytest.approx(1.5 / math.sqrt(0.25))
    assert estimate.mean[0] == 0


def test_published_score_by_hand() -> None:
    # w = 1/2, served 3, d 7/4, b 1: mean = 1/2 * 1 / 2, bonus = 3/2 * sqrt(1/4 / (13/4))
    estimate = score(
        PUBLISHED, CLUSTER, np.array([0.5]), CANDIDATE, np.array([0.7]), _one_item([3, 1.75, 9, 1, 9], [9] * 5)
    )
    assert estimate.mean[0] == pytest.approx(1 / 4)
    assert estimate.bonus[0] == pytest.approx(1.5 * math.sqrt(1 / 13))


def test_residual_score_by_hand() -> None:
    # item: 3 trials, 2 rewards, 1 predicted, 1/3 a trial given by its users; g = 1/4: rho = (2-1-1+1/4)/(3+1) = 1/16
    # edge, w = 1/2, beta = 3/16: served 5, s = 2, b = 1, f = 1/2, lambda = 3: 1/2 * (1 - 1/2 - (1/16+3/16)*2)/(5+3) = 0
    prior = Prior(edge=3.0, item=1.0, general=1 / 4, cluster=np.array([3 / 16]), base=np.array([1 / 3]))
    table = _one_item([5, 1, 2, 1, 0.5], [4, 3, 2, 2, 1], prior)
    estimate = score(RESIDUAL, CLUSTER, np.array([0.5]), CANDIDATE, np.array([0.3]), table)
    assert estimate.mean[0] == pytest.approx(0.3 + 1 / 16 + 1 / 2 * 3 / 16)
    # with b = 3 the edge adds 1/2 * 2 / 8
    better = _one_item([5, 1, 2, 3, 0.5], [4, 3, 2, 2, 1], prior)
    assert score(RESIDUAL, CLUSTER, np.array([0.5]), CANDIDATE, np.array([0.3]), better).mean[0] == pytest.approx(
        0.3 + 1 / 16 + 3 / 32 + 1 / 8
    )
    # sd: 5 pseudo-and-real trials, mean 3/5, mean square 3/5; bonus: item 1/(4+1), edge 1/4/(5+1)
    assert estimate.bonus[0] == pytest.approx(2 * math.sqrt(3 / 5 - 9 / 25) * math.sqrt(1 / 5 + 1 / 24))
    assert reward_deviation(table.total) == pytest.approx(math.sqrt(6 / 25))


def test_residual_trials_on_their_way_hold_an_edge_at_its_item() -> None:
    # the same two rewarded trials; the more further ones wait for feedback, the less the edge claims
    item, prior = [50, 50, 25, 25, 25], Prior(edge=1.0, item=1.0, general=0.0, cluster=np.zeros(1), base=np.zeros(1))
    means = [
        score(RESIDUAL, CLUSTER, WEIGHT, CANDIDATE, np.array([0.5]), _one_item([served, 2, 2, 2, 1], item, prior)).mean[
            0
        ]
        for served in (2, 9, 99)
    ]
    assert means == pytest.approx([0.5 + 1 / 3, 0.5 + 1 / 10, 0.5 + 1 / 100])


def test_residual_without_trials_is_the_offline_prediction() -> None:
    estimate = score(RESIDUAL, CLUSTER, WEIGHT, CANDIDATE, np.array([0.3]), _one_item([0] * 5, [0] * 5))
    assert estimate.mean[0] == 0.3


def test_residual_stays_at_a_prediction_that_is_right() -> None:
    # 40 trials at p = 1/4 with 10 rewards: nothing to correct anywhere
    table = _one_item([40, 40, 40, 10, 10], [40, 40, 10, 10, 10])
    estimate = score(RESIDUAL, CLUSTER, WEIGHT, CANDIDATE, np.array([0.25]), table)
    assert estimate.mean[0] == 0.25


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(0, 1)), max_size=40))
def test_published_is_exact_linucb_on_one_hot_contexts(trials: list[tuple[int, int, float]]) -> None:
    """With one active cluster of weight 1 the covariance is diagonal: nothing is lost by keeping only the diagonal."""
    clusters, arms = 3, 4
    graph = Graph.build([str(j) for j in range(arms)], np.repeat(np.arange(arms), clusters),
                        np.tile(np.arange(clusters), arms), clusters)  # fmt: skip
    edges = np.zeros((arms * clusters, 5))
    a = np.stack([PUBLISHED.edge_prior * np.eye(clusters)] * arms)
    b = np.zeros((arms, clusters))
    for c, j, r in trials:
        edges[graph.row(c, j)] += [1, 1, 1, r, 0]
        x = np.eye(clusters)[c]
        a[j] += np.outer(x, x)
        b[j] += r * x
    table = _table(graph, edges, np.zeros((arms, 5)))
    for c in range(clusters):
        x = np.eye(clusters)[c]
        mean = np.array([x @ np.linalg.solve(a[j], b[j]) for j in range(arms)])
        bonus = np.array([PUBLISHED.alpha * math.sqrt(x @ np.linalg.solve(a[j], x)) for j in range(arms)])
        estimate = score(PUBLISHED, np.array([c]), np.array([1.0]), np.arange(arms), np.zeros(arms), table)
        assert estimate.mean == pytest.approx(mean)
        assert estimate.bonus == pytest.approx(bonus)


def _plain_score(
    settings: BanditSettings, clusters: Int64, weights: Float64, candidates: Int64, predicted: Float64, table: Table
) -> Estimate:
    """The same as score, written out one candidate at a time."""
    prior = table.prior
    users = sum(w * prior.cluster[c] for c, w in zip(clusters, weights, strict=True))
    row_of = [_rows_by_item(table.adjacency, int(c)) for c in clusters]
    estimates = []
    for j, p in zip(candidates, predicted, strict=True):
        active = [
            (k, w, table.edges[row_of[k][j]] / table.trial_weight) for k, w in enumerate(weights) if j in row_of[k]
        ]
        mask = sum(1 << k for k, _, _ in active)
        if settings.form is ScoreForm.PUBLISHED:
            mean = sum(w * row[B] / (row[D] + settings.edge_prior) for _, w, row in active)
            width = sum(w**2 / (row[SERVED] + settings.edge_prior) for _, w, row in active)
            deviation = 1.0
        else:
            item = table.items[j] / table.trial_weight
            base = prior.base[j] if j < len(prior.base) else 0.0
            rho = item[REWARD] - item[PREDICTED] - base * item[N] + prior.item * prior.general
            rho /= item[N] + prior.item
            mean = p + rho + users
            for k, w, row in active:
                common = rho + prior.cluster[clusters[k]]
                mean += w * (row[B] - row[F] - common * row[S]) / (row[SERVED] + prior.edge)
            width = 1 / (item[SERVED] + settings.item_prior)
            width += sum(w**2 / (row[SERVED] + settings.edge_prior) for _, w, row in active)
            deviation = reward_deviation(table.total / table.trial_weight)
        estimates.append((mean, settings.alpha * deviation * math.sqrt(width), mask))
    return Estimate(
        np.array([mean for mean, _, _ in estimates], dtype=np.float64),
        np.array([bonus for _, bonus, _ in estimates], dtype=np.float64),
        np.array([mask for _, _, mask in estimates], dtype=np.uint64),
    )


def _rows_by_item(adjacency: Adjacency, cluster: int) -> dict[int, int]:
    first = slice(adjacency.start[cluster], adjacency.start[cluster + 1])
    rows = dict(zip(adjacency.items[first].tolist(), range(first.start, first.stop), strict=True))
    at = int(adjacency.newest[cluster])
    while at >= 0:
        rows[int(adjacency.appended[at])] = len(adjacency.items) + at
        at = int(adjacency.older[at])
    return rows


@pytest.mark.parametrize("form", [PUBLISHED, RESIDUAL])
@pytest.mark.parametrize("trial", [1.0, 7.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_equals_its_plain_form(form: BanditSettings, seed: int, trial: float) -> None:
    rng = np.random.default_rng(seed)
    clusters, items = 20, 50
    connected = rng.random((items, clusters)) < 0.3
    pairs, built = np.argwhere(connected), 5 * seed
    first = pairs[pairs[:, 0] < built]
    graph = Graph.build([str(j) for j in range(built)], first[:, 0], first[:, 1], clusters)
    later = range(built, items)
    graph = graph.with_items([str(j) for j in later], [np.flatnonzero(connected[j]).tolist() for j in later])
    edge, item, general = rng.random(3)
    prior = Prior(edge, item, general, rng.random(clusters), rng.random(40))  # made before the last ten items
    table = _table(graph, rng.random((len(pairs), 5)) * 10, rng.random((items, 5)) * 10, prior)._replace(
        trial_weight=trial
    )
    active = np.sort(rng.choice(clusters, 5, replace=False))
    weights = rng.dirichlet(np.ones(5))
    candidates, predicted = rng.permutation(items)[:30], rng.random(30)
    fast = score(form, active, weights, candidates, predicted, table)
    plain = _plain_score(form, active, weights, candidates, predicted, table)
    assert fast.mean == pytest.approx(plain.mean)
    assert fast.bonus == pytest.approx(plain.bonus)
    assert fast.edges.tolist() == plain.edges.tolist()
    assert fast.edges.tolist() == (connected[np.ix_(candidates, active)] @ (1 << np.arange(5))).tolist()
    assert len(set(fast.edges.tolist())) > 3


def test_context_takes_the_nearest_clusters_and_weighs_them_by_softmax() -> None:
    centroids = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32)
    clusters, weights = context(np.array([0.6, 0.8], dtype=np.float32), centroids, active=2, temperature=0.1)
    assert clusters.tolist() == [1, 3]  # similarities 0.6, 0.8, -0.6, 1
    assert weights[1] / weights[0] == pytest.approx(math.exp((1 - 0.8) / 0.1), rel=1e-4)
    assert weights.sum() == pytest.approx(1)


@given(st.integers(1, 80), st.integers(1, 70), st.floats(1e-4, 10))
def test_context_weights_are_always_in_range(clusters: int, active: int, temperature: float) -> None:
    rng = np.random.default_rng(clusters)
    centroids = rng.normal(size=(clusters, 3)).astype(np.float32)
    chosen, weights = context(centroids[0], centroids, active, temperature)
    assert len(chosen) == min(clusters, active, 62)
    assert weights.min() > 0
    assert weights.max() <= 1
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.1, math.nan])
def test_weights_outside_their_range_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match=r"must lie in \(0, 1\]"):
        score(PUBLISHED, CLUSTER, np.array([weight]), CANDIDATE, np.zeros(1), _one_item([0] * 5, [0] * 5))
