"""The ranker's rows are what could be shown, and the ranker learns from them and from impressions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.definitions import DAY_MS, RANKER_FEATURES, RECENT_POPULARITY, UNKNOWN_ITEM, ranker_features
from offline_training.evaluation.metrics import auc
from offline_training.progress import silent
from offline_training.ranking.dataset import RankerRows, ranker_rows
from offline_training.ranking.model import CLICK, REWARD, Form, Ranker
from offline_training.ranking.training import calibration_weights, fit_ranker
from offline_training.retrieval.dataset import read_features_at_validation, read_impressions
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained, train_models
from offline_training.training_data import read_training_data


@pytest.fixture(scope="module")
def rows(trained: Trained, sets: Path, settings: TrainingSettings) -> RankerRows:
    catalogue = trained.catalogue
    features = read_features_at_validation(sets, catalogue)
    impressions = read_impressions(sets, catalogue, settings.history_length)
    before = np.full(40, 9)
    return ranker_rows(trained.two_tower, catalogue, features, trained.sequences, before, impressions, settings, silent)


def test_rows_are_positives_of_the_window_and_weighted_others(rows: RankerRows, trained: Trained) -> None:
    assert not rows.shown.any()
    known = rows.features[:, [feature.name for feature in RANKER_FEATURES].index("known")] == 1
    for moment in np.unique(rows.moment):
        own = known & (rows.moment == moment)
        # At day 9, 10, 11 of 12 a user has 3, 2, 1 positives ahead; the pool is all of the 40 items not yet seen.
        ahead = int(rows.reward[own].sum())
        assert ahead in (1, 2, 3)
        assert rows.weight[own].sum() == pytest.approx(40 - (12 - ahead))
    assert len(np.unique(rows.moment)) == 3 * 40
    assert len(np.unique(rows.user)) == 40


def test_rows_read_stale_item_features_as_serving_would(
    trained: Trained, sets: Path, settings: TrainingSettings
) -> None:
    """The window begins at day 9; here day 11 comes 28 days later, when recent popularity is stale."""
    catalogue, days = trained.catalogue, trained.sequences.time // DAY_MS
    late = replace(trained.sequences, time=(days + 28 * (days == 11)) * DAY_MS)
    features = read_features_at_validation(sets, catalogue)
    impressions = read_impressions(sets, catalogue, settings.history_length)
    rows = ranker_rows(trained.two_tower, catalogue, features, late, np.full(40, 9), impressions, settings, silent)
    last = rows.moment % 3 == 2  # three moments of each user
    recent = rows.features[:, RANKER_FEATURES.index(RECENT_POPULARITY)]
    assert (recent[last] == RECENT_POPULARITY.default).all()
    known = rows.features[:, [feature.name for feature in RANKER_FEATURES].index("known")] == 1
    assert (recent[~last & known] > 0).all()


def test_some_rows_show_items_as_new(rows: RankerRows) -> None:
    new = (rows.features[:, : len(UNKNOWN_ITEM)] == UNKNOWN_ITEM).all(axis=1)
    assert 0 < rows.weight[new].sum() < 0.25 * rows.weight.sum()
    assert rows.reward[new].sum() > 0


def test_metrics_come_from_held_back_users(trained: Trained) -> None:
    assert trained.metrics["ranker_auc"] > 0.7
    assert 0 <= trained.metrics["ranker_ece"] < 0.2
    assert trained.metrics["ranker_logloss"] < np.log(2)
    assert trained.ranker.curve[:, 1].tolist() == sorted(trained.ranker.curve[:, 1])


def test_the_ranker_prefers_what_the_user_likes(trained: Trained) -> None:
    vectors = trained.two_tower.item_vectors()
    sequences = trained.sequences
    histories = sequences.histories(np.array([0]), np.array([12]), trained.two_tower.history_length)
    user = trained.two_tower.user_vectors(vectors, histories, sequences.profile[:1])[0]
    past = vectors[histories.liked_items(0)]
    with torch.no_grad():
        near, weights = user[None], np.ones(1)
        features = torch.from_numpy(ranker_features(user, past, near, weights, vectors, trained.catalogue.features))
        probability = trained.ranker.ranker(features).numpy()
    drama = np.array([item.startswith("drama") for item in trained.catalogue.items])
    assert probability[drama].mean() > 2 * probability[~drama].mean()
    assert ((probability > 0) & (probability < 1)).all()


def test_impressions_calibrate_the_ranker(
    sets_with_impressions: Path, settings: TrainingSettings, tmp_path: Path
) -> None:
    trained = train_models(read_training_data(sets_with_impressions, settings), tmp_path, settings, silent)
    assert trained.metrics["impressions"] == 300 * 4
    # Half of what was shown was liked, so that is what the held-back predictions for shown items average to.
    curve = trained.ranker.curve
    assert np.average(curve[:, 1], weights=curve[:, 0]) == pytest.approx(
        np.average(curve[:, 2], weights=curve[:, 0]), abs=0.05
    )
    assert np.average(curve[:, 2], weights=curve[:, 0]) == pytest.approx(0.5, abs=0.1)


def hand_rows(weight: list[float], moment: list[int], shown: bool, reward: float = 0.0) -> RankerRows:
    n = len(weight)
    return RankerRows(
        features=np.zeros((n, 1), np.float32),
        reward=np.full(n, reward),
        clicked=np.full(n, reward),
        place=np.zeros(n, np.int64),
        weight=np.array(weight),
        user=np.zeros(n, np.int64),
        moment=np.array(moment),
        shown=np.full(n, shown),
    )


def test_calibration_looks_at_the_best_of_each_pool() -> None:
    rows = hand_rows([1, 40, 40, 1, 60], [0, 0, 0, 0, 1], shown=False)
    weight = calibration_weights(rows, np.array([4.0, 3.0, 2.0, 1.0, 0.0]))
    # 50 places a moment: 1 + 40 + 9 of the first one's pool, 50 of the second's 60.
    expected = np.array([1, 40, 9, 0, 50])
    assert weight == pytest.approx(expected / expected[expected > 0].mean())


def test_calibration_trusts_impressions_once_there_are_enough() -> None:
    shown = hand_rows([1.0] * 600, list(range(600)), shown=True, reward=1.0)
    pool = hand_rows([5.0], [600], shown=False)
    rows = RankerRows(*(np.concatenate([a, b]) for a, b in zip(vars(shown).values(), vars(pool).values(), strict=True)))
    weight = calibration_weights(rows, np.zeros(601))
    assert weight[-1] == 0
    assert (weight[:-1] == 1).all()


def test_a_place_further_down_is_no_reason_to_like_an_item_less() -> None:
    """Two equal kinds of items, one of them always shown in a place that is looked at a third as often."""
    rng = np.random.default_rng(0)
    n, width = 6_000, len(RANKER_FEATURES) + 4
    features = rng.normal(size=(n, width)).astype(np.float32)
    low = rng.random(n) < 0.5
    features[:, 0] = low
    reward = (rng.random(n) < np.where(low, 0.2, 0.6)).astype(np.float64)
    rows = RankerRows(
        features=features,
        reward=reward,
        clicked=reward,
        place=np.where(low, rng.integers(3, 9, n), 0) * (rng.random(n) < 0.7),  # some of them were in front
        weight=np.ones(n),
        user=rng.integers(0, 60, n),
        moment=np.arange(n),
        shown=np.ones(n, np.bool_),
    )
    reward[low & (rows.place == 0)] = rng.random(int((low & (rows.place == 0)).sum())) < 0.6
    fitted = fit_ranker(rows, 4, TrainingSettings(ranker_epochs=4), silent)
    blind = fit_ranker(replace(rows, place=np.zeros(n, np.int64)), 4, TrainingSettings(ranker_epochs=4), silent)

    def gap(ranker: Ranker) -> float:
        with torch.no_grad():
            logits = ranker.logits(torch.from_numpy(features))[:, 0].numpy()
        return float(logits[~low].mean() - logits[low].mean())

    assert gap(blind.ranker) > 1.0
    assert abs(gap(fitted.ranker)) < 0.5 * gap(blind.ranker)


@pytest.mark.parametrize("form", list(Form))
def test_how_many_came_lately_is_read_off_the_vectors_alone(form: Form) -> None:
    """A log with a gap, or one in which all that is liked was shown, counts otherwise from one training to the next."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, len(RANKER_FEATURES) + 4)).astype(np.float32)
    features[:, -1] *= 0.01  # popularity's product is of another size than those of tastes
    ranker = Ranker(4, form).eval()
    ranker.standardise(torch.from_numpy(features))

    def logits(column: int) -> torch.Tensor:
        other = features.copy()
        other[:, column] += 0.01
        with torch.no_grad():
            return ranker.logits(torch.from_numpy(other))

    with torch.no_grad():
        present = ranker.logits(torch.from_numpy(features))
    recent = RANKER_FEATURES.index(RECENT_POPULARITY)
    assert torch.equal(logits(recent), present)
    assert (logits(-1) - present).abs().mean() > 0.05  # moved by a standard deviation


def test_the_heads_learn_what_each_is_told() -> None:
    rng = np.random.default_rng(0)
    n, width = 4_000, len(RANKER_FEATURES) + 4
    features = rng.normal(size=(n, width)).astype(np.float32)
    clicked = (features[:, 0] > 0).astype(np.float64)
    rows = RankerRows(
        features=features,
        reward=clicked * (features[:, 2] > 0),
        clicked=clicked,
        place=np.zeros(n, np.int64),
        weight=np.ones(n),
        user=rng.integers(0, 60, n),
        moment=rng.integers(0, 200, n),
        shown=np.ones(n, np.bool_),
    )
    fitted = fit_ranker(rows, 4, TrainingSettings(ranker_epochs=4), silent)
    with torch.no_grad():
        logits = fitted.ranker.logits(torch.from_numpy(features)).numpy()
    assert auc(logits[:, REWARD], rows.reward) > 0.95
    assert auc(logits[:, CLICK], rows.clicked) > 0.95
    assert fitted.metrics["ranker_click_auc"] > 0.9
    assert fitted.metrics["ranker_gauc"] > 0.9
    assert fitted.metrics["ranker_ece"] < 0.05
    assert fitted.metrics["ranker_form"] == Form.CROSSED  # no sum of features tells when both are positive


def test_what_a_sum_of_features_tells_is_left_to_a_sum() -> None:
    rng = np.random.default_rng(0)
    n, width = 2_000, len(RANKER_FEATURES) + 4
    features = rng.normal(size=(n, width)).astype(np.float32)
    reward = (rng.random(n) < 1 / (1 + np.exp(1 - features[:, 0] - features[:, 2]))).astype(np.float64)
    everything = np.ones(n)
    rows = RankerRows(
        features=features,
        reward=reward,
        clicked=reward,
        place=np.zeros(n, np.int64),
        weight=everything,
        user=rng.integers(0, 60, n),
        moment=rng.integers(0, 200, n),
        shown=everything > 0,
    )
    fitted = fit_ranker(rows, 4, TrainingSettings(), silent)
    assert fitted.metrics["ranker_form"] == Form.LINEAR
    best = auc(features[:, 0] + features[:, 1], reward)
    with torch.no_grad():
        assert auc(fitted.ranker(torch.from_numpy(features)).numpy(), reward) > best - 0.01
