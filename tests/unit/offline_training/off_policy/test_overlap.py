import numpy as np
import pytest

from offline_training.off_policy.overlap import overlap, propensity_alarm, unsupported_share
from offline_training.off_policy.slate_log import SlateLog, single_decisions
from offline_training.off_policy.weights import cumulative_weights


def drawn(n: int, stated: float = 0.25, target: float = 0.75) -> SlateLog:
    """Two actions: the first is drawn with a chance of 1/4, which is stated as so much. Rewards are 0."""
    first = np.random.default_rng(0).random(n) < 0.25
    pi_0 = np.where(first, stated, 0.75)
    return single_decisions(np.arange(n), np.zeros(n), np.where(first, target, 1 - target), pi_0)


def test_right_probabilities_raise_no_alarm() -> None:
    assert propensity_alarm(drawn(5_000)) is None


def test_probabilities_that_are_too_small_raise_one() -> None:
    alarm = propensity_alarm(drawn(5_000, stated=0.125))
    assert alarm is not None
    assert "should be 1.000: the logged probabilities are not those" in alarm


def test_a_policy_that_does_what_the_log_never_does_has_weights_too_small() -> None:
    log = drawn(5_000)
    log = log._replace(target=log.target * 0.5)  # the other half is on an action that was never drawn
    alarm = propensity_alarm(log)
    assert alarm is not None
    assert "the evaluated policy does what the log never does" in alarm
    known = log._replace(unsupported=np.full(log.target.shape, 0.5))
    assert propensity_alarm(known) is None
    warning = overlap(known, cumulative_weights(known)).warning
    assert warning is not None
    assert warning.startswith("50% of what the evaluated policy would show was never shown")


def test_what_follows_an_unsupported_slot_is_unsupported_too() -> None:
    # Shares lost: 1/2, then 1 - 1/2 * 1/2 = 3/4; a slate of one position without loss. Over three impressions: 5/12.
    zeros = np.zeros((2, 2))
    log = SlateLog(
        users=np.arange(2),
        present=np.array([[True, True], [True, False]]),
        rewards=zeros,
        target=zeros,
        logging=np.ones((2, 2)),
        model=zeros,
        model_target=zeros,
        unsupported=np.array([[0.5, 0.5], [0.0, 0.0]]),
    )
    assert unsupported_share(log) == pytest.approx(5 / 12)
    assert unsupported_share(log._replace(unsupported=None)) is None


def test_a_single_heavy_decision_is_warned_of() -> None:
    weights = np.ones((500, 1))
    weights[0] = 60
    log = single_decisions(np.arange(500), np.zeros(500), np.ones(500), np.ones(500))
    found = overlap(log, weights)
    assert found.effective_size == pytest.approx((499 + 60) ** 2 / (499 + 3600))
    assert found.warning is not None
    assert "a single decision carries 11% of all weight" in found.warning
