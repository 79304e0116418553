"""How popular items are lately: as of the moment in training, and in the towers; trusted as far as it helps."""

import numpy as np
import pytest

from offline_training.models import Trained
from offline_training.retrieval.training import fit_trust, popularity
from offline_training.settings import TrainingSettings
from tests.unit.offline_training.retrieval.test_sequences import sequences_of

DAY = 86_400


def test_levels_count_positives_of_the_days_before_each_period() -> None:
    # One user a day; item 0 is liked on days 0 to 4, then item 1; what is disliked (2) does not count.
    sequences = sequences_of(
        *[[(int(day > 4), day * DAY), (2, day * DAY)] for day in range(10)], negative=frozenset({2})
    )
    lately = popularity(sequences, np.ones(20, np.bool_), 3, TrainingSettings(recent_days=3))
    day = sequences.time // (1000 * DAY)
    for number in range(20):
        before = [int(d > 4) for d in range(10) if day[number] - 3 <= d < day[number]]
        assert lately.level[:, lately.period[number]] == pytest.approx(np.log1p([before.count(i) for i in (0, 1, 2)]))
    assert lately.level_now == pytest.approx(np.log1p([0, 3, 0]))


def test_without_drift_items_do_not_differ() -> None:
    sequences = sequences_of([(0, 0), (0, DAY)])
    lately = popularity(sequences, np.ones(2, np.bool_), 2, TrainingSettings(drift=False))
    assert not lately.level.any()
    assert not lately.level_now.any()


def test_an_item_is_as_popular_as_at_the_end_of_training(trained: Trained, settings: TrainingSettings) -> None:
    vectors = trained.two_tower.item_vectors()
    liked = np.bincount(trained.sequences.item, minlength=40)  # all within the recent days
    assert vectors[:, -1] == pytest.approx(settings.temperature * np.log1p(liked), rel=1e-5)
    assert not trained.two_tower.item_vectors(content_only=True)[:, -1].any()


def test_trust_grows_where_everybody_follows_the_crowd(trained: Trained, settings: TrainingSettings) -> None:
    model = trained.two_tower
    popular = int(np.argmax(model.item_vectors()[:, -1]))
    first = [(item % 40, item) for item in range(6)]
    followers = sequences_of(*[[*first, (popular, 10)] for _ in range(20)])
    before = np.full(20, 6)
    assert fit_trust(model, followers, before, settings) > fit_trust(model, trained.sequences, np.full(40, 9), settings)
    assert fit_trust(model, followers, np.full(20, 7), settings) == 1.0
