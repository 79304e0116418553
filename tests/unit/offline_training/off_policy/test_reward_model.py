import numpy as np
import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.reward_model import cross_fitted


def test_no_prediction_depends_on_its_own_users_rewards() -> None:
    rng = np.random.default_rng(0)
    users, x = np.repeat(np.arange(30), 4), rng.normal(size=(120, 2))
    actions, rewards = rng.integers(0, 3, 120), rng.random(120)
    before = cross_fitted(users, x, actions, rewards, 3).of(actions)
    changed = rewards.copy()
    changed[users == 7] += 100
    after = cross_fitted(users, x, actions, changed, 3).of(actions)
    assert after[users == 7].tolist() == before[users == 7].tolist()
    assert not np.allclose(after, before)


def test_levels_and_answers_of_actions_are_found() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    x, actions = rng.normal(size=(n, 1)), rng.integers(0, 2, n)
    truth = 0.5 * actions + x[:, 0] * np.where(actions, 1.0, -1.0)
    model = cross_fitted(np.arange(n), x, actions, truth + 0.1 * rng.normal(size=n), 2)
    assert np.abs(model.of(actions) - truth).mean() < 0.02
    # A policy that takes the second action three times out of four: .75 (.5 + x) + .25 (-x).
    expected = model.under(np.tile([0.25, 0.75], (n, 1)))
    assert expected == pytest.approx(0.375 + 0.5 * x[:, 0], abs=0.1)


def test_too_few_users_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 5 users, the log has 2"):
        cross_fitted(np.array([0, 1, 1]), np.zeros((3, 1)), np.zeros(3, np.int64), np.zeros(3), 1)
