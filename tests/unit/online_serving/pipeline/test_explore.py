"""How an estimate comes about, level by level, on the hand-worked example of test_diag_linucb."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gamma

from feature_store.arrays import Bool, Float64
from feature_store.graph import Graph
from feature_store.sums import EXPECTED, REWARD, REWARD_SQ, N
from online_serving.pipeline.explore import levels, worth_exploring
from streaming.bandit.diag_linucb import Table
from streaming.bandit.prior import Group, Prior
from streaming.settings import BanditMode, BanditSettings

BANDIT = BanditSettings(alpha=2.0, edge_prior=1.0)
GROUP = Group(4.0, 5.0, 5.0)
CLUSTERS, WEIGHTS, PREDICTED = np.array([0, 1]), np.array([0.5, 0.25]), np.array([0.5, 0.5])


def table() -> Table:
    """Two items, of which the second is connected to the first cluster, and nothing is connected to the second one."""
    graph = Graph.build(["never shown", "shown"], np.array([1]), np.array([0]), clusters=2)
    items = np.array([[0, 0, 0, 0, 0], [10, 10, 7, 7, 2]], dtype=float)
    prior = Prior(GROUP, GROUP, edge=2.0, least=0.0, dispersion=0.5, ceiling=1.0)
    edges = np.array([[1, 1, 2, 2, 0.4]])
    return Table(graph.adjacency, edges, items, np.zeros(2, np.bool_), items.sum(axis=0), prior)


def test_each_level_adds_to_the_one_before() -> None:
    found = levels(BANDIT, CLUSTERS, WEIGHTS, np.array([1, 0]), PREDICTED, table())
    # A prediction of odds 1 in a group of odds 4. The item earned 6 times its predicted odds, the first cluster more.
    assert found.group == pytest.approx([4 / 5, 4 / 5])
    assert found.item == pytest.approx([6 / 7, 4 / 5])
    odds = 6 * math.exp(5 / 13)
    assert found.mean == pytest.approx([odds / (1 + odds), 4 / 5])
    assert found.edges[0] == pytest.approx(found.mean), "all that the clusters know is in the first"
    assert found.edges[1] == pytest.approx(found.item)
    spread = 0.5 * (1 / 12 + 0.25 / (0.6 + BANDIT.edge_prior))
    deviation = odds / (1 + odds) ** 2 / (1 - 0.6) * math.sqrt((1 - 0.6) * spread)
    assert found.deviation[0] == pytest.approx(deviation), "whatever alpha"
    assert found.trials.tolist() == [10, 0]
    assert found.reward.tolist() == [7, 0]


def test_what_a_new_item_is_given_beyond_its_levels_is_told_apart() -> None:
    fresh = table()._replace(new=np.array([True, False]))
    found = levels(BANDIT, CLUSTERS, WEIGHTS, np.array([0, 1]), PREDICTED, fresh)
    assert found.group == pytest.approx([4 / 5, 4 / 5])
    odds = 4 * gamma.ppf(0.8, 5) / 5
    assert found.mean[0] + found.optimism[0] == pytest.approx(odds / (1 + odds), rel=1e-3)
    assert found.optimism[1] == 0


def test_without_the_bandit_all_levels_are_the_prediction() -> None:
    off = BANDIT.model_copy(update={"mode": BanditMode.OFF})
    found = levels(off, CLUSTERS, WEIGHTS, np.array([1, 0]), np.array([0.25, 0.5]), table())
    for level in (found.group, found.item, found.mean, *found.edges):
        assert level.tolist() == [0.25, 0.5]
    assert found.deviation.tolist() == [0, 0]


def test_a_column_counts_in_trials_of_now() -> None:
    faded = table()._replace(trial_weight=2.0)
    assert levels(BANDIT, CLUSTERS, WEIGHTS, np.array([1]), PREDICTED[:1], faded).trials.tolist() == [5]


def plain_worth(settings: BanditSettings, predicted: Float64, items: Float64) -> Bool:
    """worth_exploring in NumPy."""
    trials, reward = items[:, N], items[:, REWARD]
    worth = np.ones(len(items), dtype=np.bool_)
    if settings.graduation_trials:
        worth &= trials < settings.graduation_trials
    if settings.item_centric_sigmas:
        mu = (reward + 1) / (trials + 2)
        variance = np.maximum((items[:, REWARD_SQ] + 1) / (trials + 2) - mu**2, 0)
        p = predicted + (reward - items[:, EXPECTED]) / (trials + 2)
        worth &= p >= mu - settings.item_centric_sigmas * np.sqrt(variance / (trials + 3))
    return worth


@given(seed=st.integers(0, 10_000), graduation=st.sampled_from([0, 50]), sigmas=st.sampled_from([0.0, 0.5, 2.0]))
def test_the_kernel_explores_what_plain_numpy_does(seed: int, graduation: int, sigmas: float) -> None:
    rng = np.random.default_rng(seed)
    settings = BANDIT.model_copy(update={"graduation_trials": graduation, "item_centric_sigmas": sigmas})
    items = np.zeros((30, 5))
    items[:, N] = rng.integers(0, 100, 30)
    items[:, REWARD] = items[:, REWARD_SQ] = rng.binomial(items[:, N].astype(np.int64), 0.3)
    items[:, EXPECTED] = items[:, N] * rng.random(30)
    predicted = rng.random(30)
    assert worth_exploring(settings, predicted, items).tolist() == plain_worth(settings, predicted, items).tolist()
