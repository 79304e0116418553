"""The ranker's measures by hand."""

import numpy as np
import pytest

from benchmarks.retrieval.ranker import Offer, compare, goals
from feature_store.definitions import RANKER_FEATURES
from offline_training.ranking.dataset import RankerRows

WIDTH = len(RANKER_FEATURES)


def rows(reward: list[float], signal: list[float]) -> RankerRows:
    features = np.zeros((len(reward), WIDTH), np.float32)
    features[:, 0] = signal
    number = np.arange(len(reward))
    return RankerRows(
        features=features,
        reward=np.array(reward),
        clicked=np.array(reward),
        place=np.zeros(len(reward), np.int64),
        weight=np.ones(len(reward)),
        user=number,
        moment=number,
        shown=np.zeros(len(reward), np.bool_),
    )


def offer(
    signal: list[float], probability: list[float], similarity: list[float], wanted: list[bool], returning: bool = True
) -> Offer:
    features = np.zeros((len(signal), WIDTH), np.float32)
    features[:, 0] = signal
    return Offer(features, np.array(probability), np.array(similarity, np.float32), np.array(wanted), returning)


def test_the_three_orders_are_measured_on_the_same_offers() -> None:
    training = rows([0, 0, 1, 1], [-2, -1, 1, 2])
    offers = [
        offer([1, 2, 0, -1], [0.9, 0.8, 0.2, 0.1], [0, 1, 2, 3], [True, True, False, False]),
        offer([0, 1], [0.6, 0.4], [1, 0], [False, True]),
        offer([0, 1], [0.5, 0.5], [1, 0], [False, False]),  # wanted nothing: counts for AUC and ECE alone
    ]
    found = compare(training, offers)
    assert (found["users"], found["offered"], found["wanted"]) == (3, 8, 3)
    assert found["ranker"]["gauc"] == pytest.approx((4 * 1 + 2 * 0) / 6)
    assert found["retrieval"]["gauc"] == 0
    assert found["logistic_regression"]["gauc"] == 1, "it has learnt the signal"
    assert found["ranker"]["ndcg@10"]["mean"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    # wanted at .9, .8, .4 against .2, .1, .6, .5, .5: of 15 pairs 12 are in order
    assert found["ranker"]["auc"] == pytest.approx(12 / 15)
    wanted = {goal.name: goal.value for goal in goals([found, found])}
    assert wanted["ranker.gauc.ahead"] == pytest.approx(2 / 3 - 1)
    assert wanted["ranker.ece"] == pytest.approx(found["ece"])


def test_differences_to_retrieval_are_paired_by_user() -> None:
    offers = [
        offer([0, 0], [0.9, 0.1], [0, 1], [True, False]),  # in front, where retrieval has it second
        offer([0, 0, 0], [0.1, 0.9, 0.5], [3, 2, 1], [True, False, False], returning=False),  # the other way round
        offer([0, 0], [0.5, 0.4], [1, 0], [False, False]),
    ]
    found = compare(rows([0, 1], [-1, 1]), offers)["ahead_of_retrieval"]
    second = 1 - 1 / np.log2(3)
    assert found["known_users"]["ndcg@10"]["mean"] == pytest.approx(second)
    assert found["known_users"]["auc"]["mean"] == 1
    assert found["new_users"]["ndcg@10"]["mean"] == pytest.approx(1 / np.log2(4) - 1)
    assert found["all"]["auc"]["mean"] == 0
    assert found["all"]["recall@50"] == {"mean": 0, "low": 0, "high": 0}
