"""Metrics against numbers worked by hand."""

from math import log, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_training.evaluation.metrics import auc, calibration_curve, ece, hit_rate, log_loss, ndcg, recall

RANKED = [7, 3, 9, 1]


def test_recall() -> None:
    assert recall(RANKED, {3, 1, 5}, 2) == 1 / 3
    assert recall(RANKED, {3, 1, 5}, 4) == 2 / 3


def test_hit_rate() -> None:
    assert hit_rate(RANKED, {9}, 2) == 0.0
    assert hit_rate(RANKED, {9}, 3) == 1.0


def test_ndcg() -> None:
    assert ndcg(RANKED, {3, 1, 5}, 4) == pytest.approx((1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / 2))
    assert ndcg(RANKED, {7}, 1) == 1.0
    assert ndcg(RANKED, {7, 3, 9}, 2) == 1.0, "the best ranking of the first two places has two hits"


def test_without_positives_nothing_is_measured() -> None:
    for metric in (recall, hit_rate, ndcg):
        assert metric(RANKED, set(), 3) != metric(RANKED, set(), 3)  # NaN


def test_auc_counts_ties_half() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 3 / 4
    assert auc([0.5, 0.5], [0, 1]) == 1 / 2
    assert auc([1, 2, 2, 3], [0, 1, 0, 1]) == 3.5 / 4
    assert auc([1, 2], [1, 1]) != auc([1, 2], [1, 1])  # NaN


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    positive = [score for score, label in rows if label]
    negative = [score for score, label in rows if not label]
    if positive and negative:
        won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
        expected = won / (len(positive) * len(negative))
        assert auc([score for score, _ in rows], [label for _, label in rows]) == pytest.approx(expected)


def test_log_loss() -> None:
    assert log_loss([0.25, 0.5], [0, 1]) == pytest.approx((-log(0.75) - log(0.5)) / 2)
    assert log_loss([0.25, 0.5], [0, 1], [3, 1]) == pytest.approx((-3 * log(0.75) - log(0.5)) / 4)


def test_ece_in_groups_of_equal_numbers() -> None:
    probabilities, rewards = [0.1, 0.3, 0.6, 0.8], [0, 1, 1, 1]
    assert calibration_curve(probabilities, rewards, 2).ravel() == pytest.approx([2, 0.2, 0.5, 2, 0.7, 1.0])
    assert ece(probabilities, rewards, 2) == pytest.approx((0.3 + 0.3) / 2)
    assert ece(probabilities, rewards, 2, [1, 0, 1, 1]) == pytest.approx((1 * 0.1 + 2 * 0.3) / 3)
