"""Rejection replay against the same policy truly run, where arms are known."""

import numpy as np
import pytest

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.rejection import Learner, rejection_replay

ARMS = np.array([0.1, 0.2, 0.7])


def logged(chances: Float64, n: int, seed: int) -> tuple[Int64, Float64, Float64]:
    """Actions, rewards and propensities of a policy that looks at nothing."""
    rng = np.random.default_rng(seed)
    actions = rng.choice(3, n, p=chances)
    return actions, (rng.random(n) < ARMS[actions]).astype(np.float64), chances[actions]


UNIFORM, SKEWED = np.full(3, 1 / 3), np.array([0.6, 0.3, 0.1])


def ucb_by_hand(steps: int, rng: np.random.Generator) -> float:
    """UCB1 truly run: mean reward over the steps."""
    times, sums, earned = np.zeros(3), np.zeros(3), 0.0
    for step in range(steps):
        untried = np.flatnonzero(times == 0)
        best = untried[0] if len(untried) else np.argmax(sums / times + np.sqrt(2 * np.log(step) / times))
        reward = float(rng.random() < ARMS[best])
        times[best] += 1
        sums[best] += reward
        earned += reward
    return earned / steps


@pytest.mark.parametrize("chances", [UNIFORM, SKEWED], ids=["uniform", "skewed"])
def test_a_learner_earns_on_the_log_what_it_earns_when_it_runs(chances: Float64) -> None:
    found = [rejection_replay(*logged(chances, 3_000, seed), 3, Learner.UCB, seed) for seed in range(40)]
    accepted = round(np.mean([one.accepted for one in found]))
    rng = np.random.default_rng(0)
    truly = [ucb_by_hand(accepted, rng) for _ in range(200)]
    error = np.std([one.value.value for one in found]) / np.sqrt(len(found)) + np.std(truly) / np.sqrt(len(truly))
    assert abs(np.mean([one.value.value for one in found]) - np.mean(truly)) < 3.5 * error


def test_who_learns_earns_more_than_who_does_not() -> None:
    values = {learner: rejection_replay(*logged(UNIFORM, 6_000, 1), 3, learner, 0) for learner in Learner}
    assert values[Learner.UNIFORM].value.value == pytest.approx(ARMS.mean(), abs=0.05)
    for learner in (Learner.GREEDY, Learner.UCB, Learner.THOMPSON):
        assert values[learner].value.low is not None
        assert values[learner].value.low > ARMS.mean()
        assert values[learner].so_far[-1] == pytest.approx(values[learner].value.value)
        assert values[learner].refusal is None


def test_a_log_that_is_not_uniform_costs_events() -> None:
    found = rejection_replay(*logged(SKEWED, 6_000, 2), 3, Learner.UNIFORM, 0)
    # Each action is left with a chance of .1, and is chosen one time in three.
    assert found.kept == pytest.approx(1_800, rel=0.1)
    assert found.accepted == pytest.approx(600, rel=0.15)
    assert found.value.value == pytest.approx(ARMS.mean(), abs=0.06)


def test_too_few_accepted_events_are_refused_with_the_reason() -> None:
    found = rejection_replay(*logged(UNIFORM, 100, 3), 3, Learner.UNIFORM, 0)
    assert found.refusal is not None
    assert "Of 100 events 100 are left with uniform actions" in found.refusal


def test_impossible_logs_are_refused() -> None:
    actions, rewards, propensity = logged(UNIFORM, 100, 3)
    with pytest.raises(InvalidInput, match=r"rewards in 0\.\.1"):
        rejection_replay(actions, 2 * rewards, propensity, 3, Learner.UCB, 0)
    with pytest.raises(InvalidInput, match=r"in \(0, 1\]"):
        rejection_replay(actions, rewards, 0 * propensity, 3, Learner.UCB, 0)
