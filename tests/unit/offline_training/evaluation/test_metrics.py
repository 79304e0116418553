"""Metrics against numbers worked by hand."""

from math import isnan, log, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_training.evaluation.metrics import (
    auc,
    calibration_curve,
    ece,
    gauc,
    hit_rate,
    log_loss,
    ndcg,
    places,
    recall,
)

PLACES = np.array([2, 4, 9])  # of three positives


def test_places_are_those_of_the_ranking() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.3, -np.inf])
    assert places(scores, np.array([0, 1])).tolist() == [1, 4]
    assert places(scores, np.array([4])).tolist() == [5], "what is not ranked comes last"
    assert places(scores, np.array([], np.int64)).tolist() == []


def test_ties_and_nonsense_rank_against_the_model() -> None:
    assert places(np.zeros(5), np.array([2])).tolist() == [5]
    assert places(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 1])).tolist() == [2, 3]
    assert places(np.full(4, np.nan), np.array([1])).tolist() == [4]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_places_agree_with_sorting(values: list[int], data: st.DataObject) -> None:
    positives = data.draw(st.sets(st.integers(0, len(values) - 1)))
    ranked = sorted(range(len(values)), key=lambda item: (-values[item], item in positives))
    expected = [place for place, item in enumerate(ranked, 1) if item in positives]
    assert places(np.array(values, np.float32), np.array(sorted(positives), np.int64)).tolist() == expected


def test_recall() -> None:
    assert recall(PLACES, 2) == 1 / 3
    assert recall(PLACES, 4) == 2 / 3


def test_hit_rate() -> None:
    assert hit_rate(PLACES, 1) == 0.0
    assert hit_rate(PLACES, 2) == 1.0


def test_ndcg() -> None:
    assert ndcg(PLACES, 4) == pytest.approx((1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / 2))
    assert ndcg(np.array([1]), 1) == 1.0
    assert ndcg(np.array([1, 2, 3]), 2) == 1.0, "the best ranking of the first two places has two hits"


def test_without_positives_nothing_is_measured() -> None:
    for metric in (recall, hit_rate, ndcg):
        assert isnan(metric(np.array([], np.int64), 3))


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


def test_gauc_by_hand() -> None:
    scores = [0.9, 0.1, 0.5, 0.4, 0.3, 0.2, 0.8]
    labels = [0, 0, 1, 0, 1, 1, 1]
    group = np.array([7, 7, 3, 3, 3, 3, 5])
    # Groups 7 and 5 hold one class. In group 3 the order .5+ .4- .3+ .2+ has one of three pairs right.
    assert gauc(scores, labels, group) == pytest.approx(1 / 3)
    # Two rows more, all right: (4 x 1/3 + 2 x 1) / 6.
    more = gauc([*scores, 0.2, 0.1], [*labels, 1, 0], np.append(group, [9, 9]))
    assert more == pytest.approx((4 / 3 + 2) / 6)
    assert np.isnan(gauc([1.0, 2.0], [1, 1], np.array([0, 0])))
