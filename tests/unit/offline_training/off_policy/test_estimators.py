import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_store.arrays import Float64
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy import estimators as ope
from offline_training.off_policy.greedy_policy import (
    LoggedSlate,
    greedy_choice,
    logging_marginals,
    slate_log,
)
from offline_training.off_policy.intervals import skewed_interval
from offline_training.off_policy.slate_log import SlateLog, single_decisions
from offline_training.off_policy.weights import cumulative_weights
from streaming.bandit.exploration import Exploration, choose_slate


def single_position(rewards: list[float], target: list[float], logging: list[float]) -> SlateLog:
    earned, policy, shown = (np.array(column, dtype=np.float64) for column in (rewards, target, logging))
    return single_decisions(np.arange(len(rewards)), earned, policy, shown)


def _with(**wrong: float) -> SlateLog:
    """Two decisions of one position, the second with one wrong number."""
    log = single_position([1, 0], [1, 1], [0.5, 0.5])
    log = log._replace(target_marginal=np.full((2, 1), 0.5), logging_marginal=np.full((2, 1), 0.5))
    for name, value in wrong.items():
        changed = getattr(log, name).copy()
        changed[1, 0] = value
        log = log._replace(**{name: changed})
    return log


def test_importance_sampling_by_hand() -> None:
    # Weights 1/.5 = 2, 0/.5 = 0, 1/.25 = 4; rewards 1, 1, 0.
    log = single_position([1, 1, 0], [1, 0, 1], [0.5, 0.5, 0.25])
    plain, overlap = ope.rips(log)
    assert plain.value == pytest.approx(2 / 3)
    assert ope.rips_normalised(log)[0].value == pytest.approx(2 / 6)
    assert overlap.effective_size == pytest.approx(6**2 / (4 + 16))
    assert overlap.max_weight == 4
    assert overlap.mean_weight == pytest.approx(2)
    assert overlap.max_weight_share == pytest.approx(4 / 6)
    assert overlap.warning is not None


def test_under_rules_greedy_is_what_the_log_says_it_is() -> None:
    """Two of three items: of what was best for the second slot there were enough, so that greedy takes what came."""
    law, mean = Exploration(2, 0.5), np.array([0.9, 0.2, 0.8])
    shown = LoggedSlate("u", mean, np.ones(3), np.array([0.75, 0.5]), np.array([1.0, 0.0]), law)
    ruled = replace(shown, greedy=np.array([1.0, 1.0]), greedy_mean=np.array([0.9, 0.2]))
    free, under = (slate_log([one], 50, np.random.default_rng(0)) for one in (shown, ruled))
    assert (free.target.tolist(), free.model_target.tolist()) == ([[1.0, 0.0]], [[0.9, 0.8]])
    assert (under.target.tolist(), under.model_target.tolist()) == ([[1.0, 1.0]], [[0.9, 0.2]])
    assert free.target_marginal is not None
    assert under.target_marginal is None, "no simulation knows the rules"


def test_cumulative_weights_by_hand() -> None:
    # Slates of two positions with ratios (2, .5) and (0, 4), and one that stops after its first position.
    log = SlateLog(
        users=np.array([0, 1, 1]),
        present=np.array([[True, True], [True, True], [True, False]]),
        rewards=np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]),
        target=np.array([[1.0, 0.25], [0.0, 1.0], [1.0, 0.0]]),
        logging=np.array([[0.5, 0.5], [0.5, 0.25], [0.5, 1.0]]),
        model=np.zeros((3, 2)),
        model_target=np.zeros((3, 2)),
    )
    assert cumulative_weights(log).tolist() == [[2.0, 1.0], [0.0, 0.0], [2.0, 0.0]]
    # Rewards weighted: 1 (slate one, position two) + 2 (slate three, position one), over five impressions.
    assert ope.rips(log)[0].value == pytest.approx(3 / 5)
    # Position one: (0 + 0 + 2)/4 with 3/5 of the impressions; position two: 1/1 with 2/5.
    assert ope.rips_normalised(log)[0].value == pytest.approx(3 / 5 * 2 / 4 + 2 / 5)


def test_doubly_robust_by_hand() -> None:
    # DR = mean of w (r - q) + q_target with q = .5 for the shown, .75 for the target's item.
    log = single_position([1, 0], [1, 0], [0.5, 0.5])._replace(
        model=np.full((2, 1), 0.5), model_target=np.full((2, 1), 0.75)
    )
    assert ope.doubly_robust(log)[0].value == pytest.approx((2 * 0.5 + 0) / 2 + 0.75)


def test_shrinking_estimators_by_hand() -> None:
    # Weights 2, 0, 4; q = .5 of what was shown and .75 under the policy.
    log = single_position([1, 1, 0], [1, 0, 1], [0.5, 0.5, 0.25])._replace(
        model=np.full((3, 1), 0.5), model_target=np.full((3, 1), 0.75)
    )
    assert ope.direct_method(log)[0].value == pytest.approx(0.75)
    assert ope.shrunk(log, ope.CLIPPED, 3).value == pytest.approx((2 * 1 + 0 + 3 * 0) / 3)
    assert ope.shrunk(log, ope.SWITCH, 3).value == pytest.approx((2 * 0.5 + 0 + 0) / 3 + 0.75)
    # 9 * 2 / (4 + 9) and 9 * 4 / (16 + 9).
    assert ope.shrunk(log, ope.SHRUNK, 3).value == pytest.approx((18 / 13 * 0.5 - 36 / 25 * 0.5) / 3 + 0.75)
    for family in (ope.SWITCH, ope.SHRUNK):
        assert ope.shrunk(log, family, math.inf).value == pytest.approx(ope.doubly_robust(log)[0].value)
    assert ope.shrunk(log, ope.CLIPPED, math.inf).value == pytest.approx(ope.rips(log)[0].value)


def test_no_limit_is_chosen_where_it_would_change_what_the_log_says() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(20_000) < 0.05  # the action that alone is ever rewarded, and that the policy always takes
    log = single_position(
        first.astype(float).tolist(), first.astype(float).tolist(), np.where(first, 0.05, 0.95).tolist()
    )
    found, parameter = ope.tuned(log, ope.CLIPPED)
    assert found.value == pytest.approx(1, abs=0.05)
    assert parameter >= 20


def test_the_direct_method_is_for_one_position() -> None:
    zeros = np.zeros((2, 2))
    log = SlateLog(np.arange(2), np.ones((2, 2), np.bool_), zeros, zeros, np.ones((2, 2)), zeros, zeros)
    with pytest.raises(InvalidInput, match="one item per decision, this log has 2"):
        ope.direct_method(log)
    assert "direct method" not in {estimate.estimator for estimate in ope.evaluate(log).estimates}


def test_the_pseudo_inverse_is_unbiased_where_slots_are_filled_independently() -> None:
    rng = np.random.default_rng(4)
    values = np.array([[0.1, 0.5, 0.3], [0.6, 0.2, 0.4]])  # by slot and item
    pi, pi_0 = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    found = []
    for _ in range(200):
        shown = rng.choice(3, (200, 2), p=pi_0)
        chances = np.stack([values[0][shown[:, 0]], values[1][shown[:, 1]]], axis=1)
        rewards = (rng.random((200, 2)) < chances).astype(np.float64)
        log = SlateLog(
            users=np.arange(200),
            present=np.ones((200, 2), np.bool_),
            rewards=rewards,
            target=pi[shown],
            logging=pi_0[shown],
            model=np.zeros((200, 2)),
            model_target=np.zeros((200, 2)),
            target_marginal=pi[shown],
            logging_marginal=pi_0[shown],
        )
        found.append(ope.pseudo_inverse(log)[0].value)
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - (values @ pi).mean()) < 3.5 * error


def test_bounds_hold_for_a_declared_range_and_nothing_else() -> None:
    log = single_position([1, 0, 2, 0], [0.5] * 4, [0.5] * 4)
    found = ope.evaluate(log, reward_range=(0, 2)).bounds
    assert found is not None
    assert found.betting.value == pytest.approx(0.75)
    assert ope.evaluate(log).bounds is None
    with pytest.raises(InvalidInput, match=r"Rewards lie in 0\.0\.\.2\.0, the range that was declared is 0\.\.1"):
        ope.evaluate(log, reward_range=(0, 1))


def test_bounds_of_slates_are_around_rips() -> None:
    """Two users, a slate of two and one of one; RIPS by hand: (2 * 1 + 2 * 0.5 * 1 + 1 * 1) / 3."""
    log = SlateLog(
        users=np.arange(2),
        present=np.array([[True, True], [True, False]]),
        rewards=np.array([[1.0, 1.0], [1.0, 9.0]]),
        target=np.array([[1.0, 0.25], [0.5, 1.0]]),
        logging=np.array([[0.5, 0.5], [0.5, 1.0]]),
        model=np.zeros((2, 2)),
        model_target=np.zeros((2, 2)),
    )
    for least in (0.0, -1.0):
        found = ope.bounds(log, least, 1.0, 0.95)
        assert found.betting.value == pytest.approx(4 / 3)
        assert found.betting.low is not None
        assert found.betting.high is not None
        assert found.betting.low <= 4 / 3 <= found.betting.high


def test_items_of_a_category_weigh_alike() -> None:
    # Weights 4, 0 of category 7 and 1, 1 of category 8: means 2 and 1.
    log = single_decisions(
        np.arange(4), np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.5, 0.5]), np.array([0.25, 0.5, 0.5, 0.5]),
        category=np.array([7, 7, 8, 8]),
    )  # fmt: skip
    found, support = ope.marginalised(log)
    assert found.value == pytest.approx((2 * 1 + 0 + 1 + 1) / 4)
    assert support.max_weight == 2
    assert found.influence.sum() == pytest.approx(0)
    assert "MIPS" in {one.estimator for one in ope.evaluate(log).estimates}
    with pytest.raises(InvalidInput, match="one item per decision, and its category"):
        ope.marginalised(log._replace(category=None))


def test_an_interval_of_marginalised_weights_knows_that_they_are_estimated() -> None:
    """200 logs of 40 actions in 4 categories that say everything: the interval holds, and is mostly narrower than
    that of IPS."""
    values, held, narrower = np.array([0.1, 0.2, 0.4, 0.6]), 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        logged = rng.dirichlet(np.full(40, 0.7))
        target = np.full(40, 1 / 40)
        actions = rng.choice(40, 1_000, p=logged)
        rewards = (rng.random(1_000) < values[actions % 4]).astype(np.float64)
        log = single_decisions(np.arange(1_000), rewards, target[actions], logged[actions], category=actions % 4)
        found = [skewed_interval(one(log)[0], 0.95) for one in (ope.marginalised, ope.rips)]
        held += (found[0].low or 0.0) <= values.mean() <= (found[0].high or 0.0)
        widths = [(one.high or 0.0) - (one.low or 0.0) for one in found]
        narrower += widths[0] < widths[1]
    assert held >= 178
    assert narrower >= 150


def test_a_value_without_support_is_refused_with_the_reason() -> None:
    assert ope.evaluate(single_position([0, 1] * 100, [0.5] * 200, [0.5] * 200)).refusal is None
    refusal = ope.evaluate(single_position([0, 1] * 10, [0.5] * 20, [0.5] * 20)).refusal
    assert refusal is not None
    assert "20 logged decisions are worth only 20.0" in refusal


def test_evaluating_the_logging_policy_gives_the_plain_mean() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 1, (40, 3))
    log = SlateLog(
        users=np.arange(40) // 2,
        present=np.ones((40, 3), dtype=bool),
        rewards=rng.integers(0, 2, (40, 3)).astype(np.float64),
        target=p,
        logging=p,
        model=np.zeros((40, 3)),
        model_target=np.zeros((40, 3)),
        target_marginal=p,
        logging_marginal=p,
    )
    for estimate in ope.evaluate(log).estimates:
        assert estimate.value.value == pytest.approx(log.rewards.mean()), estimate.estimator


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (single_position([1], [1], [0.0]), "must lie in \\(0, 1\\]"),
        (single_position([1], [2], [0.5]), "Target probabilities"),
        (single_position([], [], []), "at least one logged slate"),
        (_with(rewards=math.nan), "The reward of decision 1 at position 1 is nan: no estimate"),
        (_with(rewards=math.inf), "The reward of decision 1 at position 1 is inf"),
        (_with(target=math.nan), "The target probability of decision 1 at position 1 is nan"),
        (_with(logging=-math.inf), "The logged probability of decision 1 at position 1 is -inf"),
        (_with(model=math.nan), "The predicted reward of decision 1 at position 1 is nan"),
        (_with(model_target=math.inf), "The predicted reward of the evaluated policy of decision 1 at position 1 is"),
        (_with(target_marginal=math.nan), "The marginal target probability of decision 1 at position 1 is nan"),
        (_with(logging_marginal=math.nan), "The marginal logged probability of decision 1 at position 1 is nan"),
        (_with(logging_marginal=0.0), r"Logged marginal probabilities lie in 0\.0\.\.0\.5, they must lie in \(0, 1\]"),
        (_with(target_marginal=1.5), r"Target marginal probabilities lie in 0\.5\.\.1\.5, they must lie in \[0, 1\]"),
        (_with()._replace(logging_marginal=None), "marginal probabilities of one policy, but not of the other"),
    ],
)
def test_impossible_logs_are_refused(log: SlateLog, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        ope.evaluate(log)


def test_greedy_choice_looks_at_what_is_left() -> None:
    # Slate: .3 though .9 was left; .9; .5. Set besides: .5, .1.
    target, best = greedy_choice(np.array([0.3, 0.9, 0.5, 0.5, 0.1]), 3)
    assert target.tolist() == [0.0, 1.0, 0.5]
    assert best.tolist() == [0.9, 0.9, 0.5]


def test_marginals_by_hand() -> None:
    # Three items, means .3 > .2 > .1, one bonus, top 2, share 1/2. Slot one: P(a) = 1/2 + 1/4, P(b) = 1/4.
    # b at slot two: after a it is the best left: 1/2 + 1/4; after b it is gone. So 3/4 * 3/4.
    mean, slate = np.array([0.3, 0.2, 0.1]), np.array([0, 1], dtype=np.int64)
    found = logging_marginals(mean, np.ones(3), slate, Exploration(2, 0.5), 200_000, np.random.default_rng(0))
    assert found[0] == pytest.approx(3 / 4)
    assert found[1] == pytest.approx(9 / 16, abs=0.005)


def test_marginals_follow_the_serving_code_where_some_items_are_not_explored() -> None:
    mean, bonus = np.array([0.5, 0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.0, 0.1, 0.3, 0.0])
    wanted, draws = np.array([0, 1, 3], dtype=np.int64), 40_000
    rng = np.random.default_rng(3)
    hits = sum(choose_slate(mean, bonus, 3, 3, 0.5, rng).shown == wanted for _ in range(draws))
    found = logging_marginals(mean, bonus, wanted, Exploration(3, 0.5), draws, rng)
    assert found == pytest.approx(hits / draws, abs=0.015)


def test_ties_are_broken_by_chance_in_the_marginals_too() -> None:
    # Two items of one mean, no exploration: either is first with chance 1/2, and the other one second.
    found = logging_marginals(
        np.array([0.3, 0.3]), np.zeros(2), np.array([1, 0]), Exploration(2, 0.0), 20_000, np.random.default_rng(0)
    )
    assert found == pytest.approx([0.5, 0.5], abs=0.02)


def synthetic(seed: int, n: int, truth: Float64, mean: Float64, share: float, chain: float) -> list[LoggedSlate]:
    """Slates of 3 from 6 items by the serving code; a reward at a position after a rewarded item is rarer by the
    chain.
    """
    rng = np.random.default_rng(seed)
    bonus = np.full(len(mean), 0.05)
    slates = []
    for row in range(n):
        slate = choose_slate(mean, bonus, 3, 4, share, rng)
        items = np.concatenate([slate.shown, slate.explored])
        rewards = np.zeros(3)
        for position, item in enumerate(slate.shown):
            p = truth[item] * (1 - chain if position and rewards[position - 1] else 1)
            rewards[position] = rng.random() < p
        slates.append(
            LoggedSlate(f"u{row // 3}", mean[items], bonus[items], slate.probabilities, rewards, Exploration(4, share))
        )
    return slates


def greedy_value(truth: Float64, mean: Float64, chain: float) -> float:
    a, b, c = truth[np.argsort(-mean)[:3]]
    second = b * (1 - chain * a)
    return float((a + second + c * (1 - chain * second)) / 3)


TRUTH = np.array([0.6, 0.2, 0.5, 0.1, 0.4, 0.3])
WRONG = np.array([0.5, 0.45, 0.4, 0.35, 0.3, 0.25])  # the policy's own belief, wrong on purpose


def test_estimators_are_unbiased_where_their_assumption_holds() -> None:
    rng = np.random.default_rng(9)
    found: dict[str, list[float]] = {}
    for seed in range(80):
        slates = synthetic(seed, 90, TRUTH, WRONG, share=0.5, chain=0.0)
        for estimate in ope.evaluate(slate_log(slates, 100, rng)).estimates:
            found.setdefault(estimate.estimator, []).append(estimate.value.value)
    truth = greedy_value(TRUTH, WRONG, 0.0)
    for name in ("RIPS", "IIPS", "doubly robust"):
        values = np.array(found[name])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - truth) < 3.5 * error, name
        assert error < 0.02
    for name in ("RIPS, self-normalised", "IIPS, self-normalised", "doubly robust, self-normalised"):
        assert np.mean(found[name]) == pytest.approx(truth, abs=0.02)
    assert np.std(found["doubly robust, self-normalised"]) < np.std(found["RIPS"])


def test_sequential_estimators_stay_unbiased_when_rewards_interact() -> None:
    values: dict[str, list[float]] = {"RIPS": [], "doubly robust": []}
    for seed in range(100):
        slates = synthetic(1_000 + seed, 90, TRUTH, WRONG, share=0.5, chain=0.8)
        log = slate_log(slates, 0, np.random.default_rng(0))
        values["RIPS"].append(ope.rips(log)[0].value)
        values["doubly robust"].append(ope.doubly_robust(log)[0].value)
    for name, found in values.items():
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert abs(np.mean(found) - greedy_value(TRUTH, WRONG, 0.8)) < 3.5 * error, name


def test_intervals_cover_the_true_value() -> None:
    truth = greedy_value(TRUTH, WRONG, 0.0)
    covered, runs = 0, 100
    for seed in range(runs):
        log = slate_log(synthetic(5_000 + seed, 240, TRUTH, WRONG, 0.4, 0.0), 0, np.random.default_rng(0))
        value = ope.evaluate(log).read_first().value
        assert value.low is not None
        assert value.high is not None
        covered += value.low <= truth <= value.high
    assert covered / runs >= 0.9


def test_a_log_without_marginals_leaves_item_position_estimators_out() -> None:
    result = ope.evaluate(single_position([1, 0], [1, 1], [0.5, 0.5]))
    assert not any("IIPS" in estimate.estimator for estimate in result.estimates)
    with pytest.raises(InvalidInput, match="marginal probabilities"):
        ope.iips(single_position([1, 0], [1, 1], [0.5, 0.5]))


DATA = os.environ.get("MATCHLOOP_TEST_DATA")


@pytest.mark.skipif(DATA is None, reason="MATCHLOOP_TEST_DATA names no folder of data sets (open-bandit-small is read)")
@pytest.mark.parametrize(
    ("campaign", "arms", "value", "effective", "weight"),
    [("all", 80, 0.00236, 340, 278), ("men", 34, 0.00301, 656, None), ("women", 46, 0.00744, 2.1, 21_739)],
)
def test_open_bandit_uniform_policy(
    campaign: str, arms: int, value: float, effective: float, weight: float | None
) -> None:
    table = pq.read_table(
        Path(DATA or "") / "open-bandit-small" / f"bts_{campaign}.parquet", columns=["click", "propensity"]
    )
    clicks, propensity = (table[name].to_numpy().astype(np.float64) for name in ("click", "propensity"))
    log = single_position(clicks.tolist(), [1 / arms] * len(clicks), propensity.tolist())
    (estimate, *_) = ope.evaluate(log).estimates
    assert estimate.value.value == pytest.approx(value, abs=6e-6)
    assert estimate.overlap.effective_size == pytest.approx(effective, rel=0.03)
    if weight is not None:
        assert estimate.overlap.max_weight == pytest.approx(weight, rel=0.003)
    assert (estimate.overlap.warning is not None) == (campaign == "women")
