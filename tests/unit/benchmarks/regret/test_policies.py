"""Each policy's score against the same worked out in another way, from the list of trials."""

import math

import numpy as np
import pytest

from benchmarks.regret import policies
from benchmarks.regret.policies import Learnt, learn, new_state, score, serve
from benchmarks.regret.world import Environment
from feature_store.arrays import Float64
from feature_store.sums import ITEM
from streaming.bandit import diag_linucb
from streaming.bandit.prior import fit
from streaming.bandit.update import Shares
from streaming.settings import BanditSettings, ScoreForm

CANDIDATES = np.arange(6)
USER = 2


def trials(count: int) -> list[tuple[int, int, float]]:
    """(user, item, reward); item 5 has none."""
    rng = np.random.default_rng(3)
    return [(int(rng.integers(5)), int(rng.integers(5)), float(rng.integers(2))) for _ in range(count)]


def after(kind: int, parameters: Float64, world: Environment, done: list[tuple[int, int, float]]) -> Learnt:
    state = new_state(kind, parameters, world)
    for user, item, reward in done:
        serve(kind, state, world, user, item)
        learn(kind, state, world, user, item, reward)
    return state


def scores(kind: int, parameters: Float64, state: Learnt, world: Environment, now: int = 0) -> tuple[Float64, Float64]:
    mean, bonus, masks = np.empty(6), np.empty(6), np.empty(6, np.uint64)
    predicted = world.predicted[USER].astype(np.float64)
    score(kind, parameters, state, world, USER, now, CANDIDATES, predicted, mean, bonus, masks)
    return mean, bonus


def dense(world: Environment, user: int) -> Float64:
    x = np.zeros(world.cluster_count)
    x[world.clusters[user]] = world.weights[user]
    return x


def test_linucb_is_ridge_regression_with_its_ellipsoid(world: Environment) -> None:
    alpha, ridge = 0.7, 0.3
    done = trials(500)
    parameters = np.array([alpha, ridge])
    mean, bonus = scores(policies.LINUCB, parameters, after(policies.LINUCB, parameters, world, done), world)
    x = dense(world, USER)
    for item in CANDIDATES:
        rows = np.array([dense(world, user) for user, shown, _ in done if shown == item]).reshape(-1, 4)
        rewards = np.array([reward for _, shown, reward in done if shown == item])
        covariance = ridge * np.eye(4) + rows.T @ rows
        assert mean[item] == pytest.approx(x @ np.linalg.solve(covariance, rows.T @ rewards), abs=1e-10)
        assert bonus[item] == pytest.approx(alpha * math.sqrt(x @ np.linalg.solve(covariance, x)), abs=1e-10)


def test_lints_draws_from_the_posterior_of_linucb(world: Environment) -> None:
    v = 0.5
    parameters = np.array([v, 1.0])
    done = trials(60)
    mean, bonus = scores(policies.LINUCB, parameters, after(policies.LINUCB, parameters, world, done), world)
    state = after(policies.LINTS, parameters, world, done)
    drawn = np.array([scores(policies.LINTS, parameters, state, world)[0] for _ in range(4000)])
    standard_error = bonus / math.sqrt(4000)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * standard_error)
    assert drawn.std(axis=0) == pytest.approx(bonus, rel=0.06)


def test_item_policies_by_hand(world: Environment) -> None:
    done = [(0, 0, 1.0), (1, 0, 0.0), (2, 0, 1.0), (3, 1, 1.0), (4, 1, 0.0)]  # items 2..5 never
    never = np.array([0.0])
    mean, _ = scores(policies.POPULARITY, never, after(policies.POPULARITY, never, world, done), world)
    assert mean.tolist() == [2, 1, 0, 0, 0, 0]
    mean, bonus = scores(policies.EPSILON_GREEDY, never, after(policies.EPSILON_GREEDY, never, world, done), world)
    assert mean == pytest.approx([2 / 3, 1 / 2, 3 / 5, 3 / 5, 3 / 5, 3 / 5])
    assert not bonus.any()
    factor = np.array([0.5])
    mean, bonus = scores(policies.UCB1, factor, after(policies.UCB1, factor, world, done), world, now=5)
    assert bonus[:2] == pytest.approx([0.5 * math.sqrt(2 * math.log(6) / n) for n in (3, 2)])
    assert np.isinf(bonus[2:]).all()


def test_thompson_draws_from_its_posterior(world: Environment) -> None:
    done = trials(60)
    rewards = [[reward for _, shown, reward in done if shown == item] for item in CANDIDATES]
    a, b = 2.0, 5.0
    beta = np.array([a, b])
    state = after(policies.BETA_THOMPSON, beta, world, done)
    drawn = np.array([scores(policies.BETA_THOMPSON, beta, state, world)[0] for _ in range(4000)])
    expected = [(a + sum(own)) / (a + b + len(own)) for own in rewards]
    assert drawn.mean(axis=0) == pytest.approx(expected, abs=0.015)

    normal = np.array([0.4, 0.5])  # one trial of 0.5 is its prior
    state = after(policies.GAUSSIAN_THOMPSON, normal, world, done)
    drawn = np.array([scores(policies.GAUSSIAN_THOMPSON, normal, state, world)[0] for _ in range(4000)])
    assert drawn.mean(axis=0) == pytest.approx([(0.5 + sum(own)) / (1 + len(own)) for own in rewards], abs=0.03)
    assert drawn.std(axis=0) == pytest.approx([0.4 / math.sqrt(1 + len(own)) for own in rewards], rel=0.06)


@pytest.mark.parametrize("kind", [policies.PUBLISHED, policies.OURS])
def test_diag_linucb_is_the_products_update_and_score(kind: int, world: Environment) -> None:
    form = ScoreForm.PUBLISHED if kind == policies.PUBLISHED else BanditSettings().form
    settings = BanditSettings(form=form, alpha=0.4, edge_prior=2.0)
    done, pending = trials(200), trials(20)
    parameters = np.array([0.4, 2.0])
    state = after(kind, parameters, world, done)
    for user, item, _ in pending:
        serve(kind, state, world, user, item)
    edges, items = np.zeros((len(world.edge_cluster), 5)), np.zeros((6, 5))
    shares = Shares()
    for number, (user, item, reward) in enumerate(done + pending):
        learnt = float(number < len(done))
        clusters = world.clusters[user].tolist()
        connected = world.edge_cluster[world.item_start[item] : world.item_start[item + 1]]
        mask = sum(1 << k for k, c in enumerate(clusters) if c in connected)
        share = (1.0, learnt, learnt * reward, learnt * reward**2)
        shares.add(
            [item],
            [share[1] * float(world.predicted[user, item])],
            [mask],
            clusters,
            world.weights[user].tolist(),
            share,
        )
    for item, cluster, values in zip(*shares.additions(), strict=True):
        first, end = world.item_start[item], world.item_start[item + 1]
        row = min(first + int(np.searchsorted(world.edge_cluster[first:end], cluster)), end - 1)
        (items if cluster == ITEM else edges)[item if cluster == ITEM else state.rows[row]] += values
    assert state.items == pytest.approx(items, abs=1e-9)
    assert state.edges == pytest.approx(edges, abs=1e-9)
    total = items.sum(axis=0)
    prior = fit(state.adjacency, edges, items, state.new, total)
    table = diag_linucb.Table(state.adjacency, edges, items, state.new, total, prior)
    wanted = diag_linucb.score(
        settings,
        world.clusters[USER],
        world.weights[USER],
        CANDIDATES,
        world.predicted[USER].astype(np.float64),
        table,
    )
    mean, bonus = scores(kind, parameters, state, world)
    assert mean == pytest.approx(wanted.mean, abs=1e-12)
    assert bonus == pytest.approx(wanted.bonus, abs=1e-12)
