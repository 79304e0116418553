"""The closed loop: what a policy may know, and when."""

import numpy as np
import pytest

from benchmarks.regret import policies
from benchmarks.regret.loop import Run, Visits, play, visits
from benchmarks.regret.policies import new_state
from benchmarks.regret.world import Environment

ROUNDS = 200
PARAMETERS = np.array([2.0, 1.0, 1.0])  # much exploration
LEARNERS = [policies.UCB1, policies.LINUCB, policies.LINTS, policies.BETA_THOMPSON, policies.PUBLISHED, policies.OURS]


def played(kind: int, world: Environment, came: Visits, delay: int = 0) -> Run:
    return play(kind, PARAMETERS, new_state(kind, PARAMETERS, world), world, came, delay, seed=5)


def test_everybody_comes_equally_often(world: Environment) -> None:
    came = visits(world, ROUNDS, seed=1)
    assert np.bincount(came.user).tolist() == [40] * 5
    assert not np.array_equal(came.user, visits(world, ROUNDS, seed=2).user)


@pytest.mark.parametrize("kind", LEARNERS)
def test_only_what_is_there_is_shown(kind: int, world: Environment) -> None:
    came = visits(world, ROUNDS, seed=1)
    run = played(kind, world, came)
    assert np.all(world.arrival[run.shown] <= np.arange(ROUNDS))
    assert np.all(came.user[run.shown == 2] == 0)  # on nobody else's menu
    assert len(np.unique(run.shown)) >= 5


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("delay", [0, 1, 17])
def test_no_decision_knows_a_reward_before_its_time(kind: int, delay: int, world: Environment) -> None:
    """Other luck from round 100 on changes nothing up to round 100 + delay."""
    came = visits(world, ROUNDS, seed=1)
    first = played(kind, world, came, delay)
    luck = came.luck.copy()
    luck[100:] = 1 - luck[100:]
    second = played(kind, world, Visits(came.user, luck), delay)
    assert np.array_equal(first.shown[: 101 + delay], second.shown[: 101 + delay])
    assert not np.array_equal(first.shown, second.shown)


def test_all_feedback_arrives_but_that_of_the_last_rounds(world: Environment) -> None:
    came = visits(world, ROUNDS, seed=1)
    state = new_state(policies.OURS, PARAMETERS, world)
    run = play(policies.OURS, PARAMETERS, state, world, came, 30, seed=5)
    assert state.total.tolist()[:3] == [ROUNDS, ROUNDS - 30, run.reward[:-30].sum()]
    assert np.array_equal(state.items[:, 0], np.bincount(run.shown))
    assert np.array_equal(state.items[:, 1], np.bincount(run.shown[:-30]))


def test_the_oracle_is_above_everybody_and_random_shows_all_alike(world: Environment) -> None:
    came = visits(world, 2000, seed=1)
    ceiling = played(policies.ORACLE, world, came)
    available = world.reward[came.user].copy()
    available[np.arange(2000)[:, None] < world.arrival] = 0
    available[came.user != 0, 2] = 0
    assert ceiling.expected == pytest.approx(available.max(axis=1))
    for kind in LEARNERS:
        assert played(kind, world, came).expected.mean() < ceiling.expected.mean()
    shown = played(policies.RANDOM, world, came).shown[100:]
    counts = np.bincount(shown)[[0, 1, 3, 4, 5]]
    assert counts == pytest.approx(np.full(5, len(shown) / 5), rel=0.2)


def test_a_reward_without_noise_is_its_expectation(world: Environment) -> None:
    came = visits(world, ROUNDS, seed=1)
    run = played(policies.RANDOM, world._replace(noisy=False), came)
    assert np.array_equal(run.reward, run.expected)
    noisy = played(policies.RANDOM, world, came)
    assert set(noisy.reward) == {0.0, 1.0}
    assert np.array_equal(noisy.reward, came.luck < noisy.expected)
