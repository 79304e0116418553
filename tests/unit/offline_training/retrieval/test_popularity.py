"""How popular items are lately: as of the moment in training, and in the towers; trusted as far as it helps."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from feature_store.definitions import USER_TOKENS
from offline_training.retrieval.training import expect_of_unknown, fit_trust, popularity, without_silences
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from tests.unit.offline_training.retrieval.test_sequences import sequences_of

DAY = 86_400


def test_levels_count_positives_before_each_period_the_less_the_older_they_are() -> None:
    # One user a day; item 0 is liked on days 0 to 4, then item 1; what is disliked (2) does not count.
    sequences = sequences_of(
        *[[(int(day > 4), day * DAY), (2, day * DAY)] for day in range(10)], negative=frozenset({2})
    )
    lately = popularity(sequences, np.ones(20, np.bool_), 3, TrainingSettings(recent_days=3))

    def level(day: int) -> list[float]:
        count = [sum(np.exp((d - day) / 3) for d in range(day) if int(d > 4) == item) for item in (0, 1, 2)]
        return [float(np.log1p(n / 0.3)) for n in count]

    for number, day in enumerate((sequences.time // (1000 * DAY)).tolist()):
        assert lately.level[:, lately.period[number]] == pytest.approx(level(day), rel=1e-5)
    # A millisecond after the newest, that of day 9.
    now = [np.exp(-np.arange(lowest, lowest + 5) / 3).sum() for lowest in (5, 0)]
    assert lately.level_now == pytest.approx([*np.log1p(np.array(now) / 0.3), 0], rel=1e-3)


def test_years_in_which_nothing_happened_do_not_make_what_was_before_forgotten() -> None:
    days = [0, 1, 5, 9_000]
    clock = without_silences(np.array(days) * 1000 * DAY, 3)
    assert clock.tolist() == [0, 1000 * DAY, 4000 * DAY, 7000 * DAY]
    sequences = sequences_of([(0, day * DAY) for day in days[:3]], [(1, days[3] * DAY)])
    lately = popularity(sequences, np.ones(4, np.bool_), 2, TrainingSettings(recent_days=3))
    count = np.array([np.exp([-7 / 3, -2, -1]).sum(), 1])
    assert lately.level_now == pytest.approx(np.log1p(count / 0.3), rel=1e-5)


def test_without_drift_items_do_not_differ() -> None:
    sequences = sequences_of([(0, 0), (0, DAY)])
    lately = popularity(sequences, np.ones(2, np.bool_), 2, TrainingSettings(drift=False))
    assert not lately.level.any()
    assert not lately.level_now.any()


def test_an_item_is_as_popular_as_at_the_end_of_training(trained: Trained, settings: TrainingSettings) -> None:
    vectors = trained.two_tower.item_vectors()
    age = (trained.sequences.time.max() - trained.sequences.time) / (1000 * DAY)
    liked = np.bincount(trained.sequences.item, np.exp(-age / settings.recent_days), 40)
    assert vectors[:, -1] == pytest.approx(settings.temperature * np.log1p(liked / 0.3), rel=1e-4)


def test_an_unknown_item_weighs_in_a_softmax_what_known_ones_do_on_average(trained: Trained) -> None:
    model = deepcopy(trained.two_tower)
    model.item_tower.popularity[1:] = torch.arange(40) / 10
    model.ids[31:] = 0  # the ten most popular ones were not known
    nobody = sequences_of([(0, 0)]).histories(np.array([0]), np.array([0]), model.history_length)
    weight = model.user_vectors(model.item_vectors(), nobody, np.zeros((1, USER_TOKENS), np.int64))[0, -1]
    expect_of_unknown(model)
    unknown = model.item_tower.popularity[0].item()
    assert np.exp(weight * unknown) == pytest.approx(np.exp(weight * np.arange(30) / 10).mean(), rel=1e-5)
    temperature = model.item_tower.temperature
    assert model.item_vectors(content_only=True)[:, -1] == pytest.approx([temperature * unknown] * 40)


def test_trust_is_what_later_positives_ask_for(trained: Trained, settings: TrainingSettings) -> None:
    model = deepcopy(trained.two_tower)
    first = [(item, item) for item in range(6)]
    histories = sequences_of(first).histories(np.array([0]), np.array([6]), model.history_length)
    vectors = model.item_vectors()
    taste = vectors[:, :-1] @ model.user_vectors(vectors, histories, np.zeros((1, USER_TOKENS), np.int64))[0, :-1]
    best, worst = int(np.argmax(taste)), int(np.argmin(taste))
    model.item_tower.popularity.zero_()
    model.item_tower.popularity[1 + worst] = 1.0  # everybody wants it lately, and nobody should

    def trust(item: int, known: int) -> float:
        people = sequences_of(*[[*first, (item, 10)] for _ in range(20)])
        return fit_trust(model, people, np.full(20, known), settings)

    assert trust(best, 6) < 1 < trust(worst, 6)
    assert trust(worst, 7) == 1.0  # nothing is held back
