"""What the ranker counts beside retrieval, by hand and in worlds where the answer is known."""

import numpy as np
import pytest
import torch

from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.definitions import RANKER_FEATURES
from offline_training.evaluation.metrics import ece, gauc, ndcg, places
from offline_training.progress import silent
from offline_training.ranking.blend import (
    EVEN,
    RANKER_ALONE,
    RETRIEVAL_ALONE,
    blended,
    choose_share,
    first_moments,
    weighted_ndcg,
)
from offline_training.ranking.dataset import RankerRows
from offline_training.ranking.model import AFFINITY, Form, Ranker
from offline_training.ranking.training import fit_ranker
from offline_training.settings import TrainingSettings

USERS, ITEMS, DIMENSIONS = 150, 40, 4
KNOWN = [feature.name for feature in RANKER_FEATURES].index("known")
WIDTH = len(RANKER_FEATURES) + DIMENSIONS
TEMPERATURE = TrainingSettings().temperature


def world(by_retrieval: float, by_feature: float) -> RankerRows:
    """Everybody at one moment, and items that they like by retrieval's log-score and by a feature of theirs; all other
    features are noise."""
    rng = np.random.default_rng(0)
    n = USERS * ITEMS
    features = rng.normal(size=(n, WIDTH)).astype(np.float32)
    retrieval = rng.normal(size=n)
    features[:, AFFINITY], features[:, KNOWN] = TEMPERATURE * retrieval, 1
    odds = by_retrieval * retrieval + by_feature * features[:, 0] - 2.5
    liked = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    moment = np.repeat(np.arange(USERS), ITEMS)
    return hand_rows(features, liked, moment, moment)


def hand_rows(
    features: Float32 | Float64, reward: Float64, user: Int64, moment: Int64, shown: Bool | None = None
) -> RankerRows:
    n = len(reward)
    return RankerRows(
        features=np.asarray(features, np.float32),
        reward=reward,
        clicked=reward,
        place=np.zeros(n, np.int64),
        weight=np.ones(n),
        user=user,
        moment=moment,
        shown=np.zeros(n, np.bool_) if shown is None else shown,
    )


def retrieval_of(rows: RankerRows) -> Float64:
    return rows.features[:, AFFINITY].astype(np.float64) / TEMPERATURE


def test_a_blend_by_hand() -> None:
    logits, retrieval = np.array([-1.0, 2.0]), np.array([3.0, 1.0])
    assert blended(0.25, logits, retrieval).tolist() == [-0.25 + 2.25, 0.5 + 0.75]
    assert blended(RETRIEVAL_ALONE, logits, retrieval).tolist() == retrieval.tolist()
    assert blended(RANKER_ALONE, logits, retrieval).tolist() == logits.tolist()


def test_a_sampled_row_takes_the_places_of_all_that_it_stands_for() -> None:
    score = np.array([3.0, 2.0, 1.0, 5.0, 5.0, 0.0])
    wanted = np.array([False, True, True, True, False, False])
    weight = np.array([2.0, 1.0, 1.0, 1.0, 3.0, 1.0])
    found = weighted_ndcg(score, wanted, weight, np.array([4, 4, 4, 7, 7, 9]))
    best = 1 + 1 / np.log2(3)
    # moment 4: places 3 and 4, behind two others; 7: a tie with three, so place 4; 9 wants nothing
    assert found == pytest.approx([(1 / np.log2(4) + 1 / np.log2(5)) / best, 1 / np.log2(5)])


def test_of_whole_rows_it_is_the_ndcg_of_the_list() -> None:
    rng = np.random.default_rng(3)
    moment = np.repeat(np.arange(7), 12)
    score, wanted = rng.integers(0, 9, len(moment)).astype(np.float64), rng.random(len(moment)) < 0.3
    expected = [
        ndcg(places(score[moment == k], np.flatnonzero(wanted[moment == k])), 12)
        for k in range(7)
        if wanted[moment == k].any()
    ]
    assert weighted_ndcg(score, wanted, np.ones(len(moment)), moment) == pytest.approx(expected)


def test_everybody_is_asked_once_and_not_by_what_was_shown() -> None:
    features = np.zeros((6, WIDTH))
    features[:, KNOWN] = [1, 1, 0, 1, 1, 1]
    user, moment = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 2, 0, 3])
    rows = hand_rows(features, np.ones(6), user, moment, np.arange(6) == 4)
    assert first_moments(rows).tolist() == [0, 1, 5]


def test_both_are_believed_where_both_know_something() -> None:
    rows = world(by_retrieval=1.0, by_feature=1.0)
    logits = 2 * rows.features[:, 0].astype(np.float64)
    assert choose_share(rows, logits, retrieval_of(rows)) == EVEN


def test_a_ranker_that_is_noise_is_not_listened_to() -> None:
    rows = world(by_retrieval=1.5, by_feature=0.0)
    noise = np.random.default_rng(1).normal(size=len(rows))
    assert choose_share(rows, noise, retrieval_of(rows)) == RETRIEVAL_ALONE


def test_retrieval_that_is_noise_is_not_listened_to() -> None:
    rows = world(by_retrieval=0.0, by_feature=1.5)
    assert choose_share(rows, rows.features[:, 0].astype(np.float64), retrieval_of(rows)) == RANKER_ALONE


def test_without_a_pool_to_ask_the_ranker_is_all_there_is() -> None:
    rows = hand_rows(np.ones((2, WIDTH)), np.ones(2), np.arange(2), np.arange(2), np.ones(2, np.bool_))
    assert choose_share(rows, np.zeros(2), np.zeros(2)) == RANKER_ALONE


@pytest.mark.parametrize("by_feature", [0.0, 1.0])
def test_what_serves_orders_no_worse_than_retrieval_and_keeps_its_word(by_feature: float) -> None:
    rows = world(by_retrieval=1.0, by_feature=by_feature)
    fitted = fit_ranker(rows, DIMENSIONS, TrainingSettings(), silent)
    with torch.no_grad():
        probability = fitted.ranker(torch.from_numpy(rows.features)).numpy().astype(np.float64)
    served, retrieval = (gauc(score, rows.reward, rows.moment) for score in (probability, retrieval_of(rows)))
    assert served >= retrieval - 0.01
    assert by_feature == 0 or served > retrieval + 0.05
    assert fitted.metrics["ranker_gauc"] >= fitted.metrics["retrieval_gauc"] - 0.01
    assert fitted.metrics["ranker_ece"] < 0.02
    assert ece(probability, rows.reward) < 0.02


def test_with_retrieval_alone_the_graph_gives_its_order() -> None:
    rows = world(by_retrieval=1.0, by_feature=0.0)
    ranker = Ranker(DIMENSIONS, Form.CROSSED)
    ranker.blend.copy_(torch.tensor([RETRIEVAL_ALONE, 1 / TEMPERATURE]))
    with torch.no_grad():
        probability = ranker(torch.from_numpy(rows.features[:ITEMS])).numpy()
    assert (np.argsort(probability) == np.argsort(rows.features[:ITEMS, AFFINITY])).all()
