"""How popular items are lately: as of the moment in training, and in the towers; trusted as far as it helps."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from feature_store.definitions import USER_TOKENS
from offline_training.retrieval.dataset import Impressions, profile_ids
from offline_training.retrieval.popularity import (
    RECENT_DAYS,
    beyond_expected,
    choose_days,
    popularity,
    unasked,
    without_silences,
)
from offline_training.retrieval.sequences import Histories, Sequences
from offline_training.retrieval.two_tower import TwoTower
from offline_training.retrieval.worth import Worth, expect_of_unknown, fit_worth, judge_shown
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from tests.unit.offline_training.retrieval.test_sequences import sequences_of

DAY = 86_400
SETTINGS = TrainingSettings(recent_days=RECENT_DAYS[0])


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


def wanted(users: int, days_between: float, lasts: float) -> Sequences:
    """Every so many days somebody comes and likes two of 40 items, of which six are wanted most: others after each
    `lasts` days."""
    rng, people = np.random.default_rng(0), []
    for number in range(users):
        day = number * days_between
        often = np.where((np.arange(40) - 7 * int(day / lasts)) % 40 < 6, 20.0, 1.0)
        items = rng.choice(40, 2, replace=False, p=often / often.sum())
        people.append([(int(item), int(day * DAY)) for item in items])
    return sequences_of(*people)


@pytest.mark.parametrize(
    ("days_between", "lasts", "least", "most"), [(10, 1e9, 112, 896), (0.05, 4, 0.4375, 7), (0.01, 1e9, 14, 14)]
)
def test_days_count_as_recent_for_as_long_as_they_tell_what_is_wanted_next(
    days_between: float, lasts: float, least: float, most: float
) -> None:
    sequences = wanted(400, days_between, lasts)
    everything = np.ones(800, np.bool_)
    assert least <= choose_days(sequences, everything, 40) <= most
    assert choose_days(sequences, ~everything, 40) == RECENT_DAYS[0], "nothing counts"


def test_days_are_the_first_ones_where_nothing_comes_before_anything() -> None:
    for sequences in (sequences_of([(0, 5)]), sequences_of([(0, 5), (1, 5)], [(1, 5)])):
        assert choose_days(sequences, np.ones(len(sequences.item), np.bool_), 3) == RECENT_DAYS[0]


def shown(*decisions: tuple[str, int, list[int], list[float]]) -> Impressions:
    """Each decision's user, second, items, and their rewards."""
    empty = np.zeros((len(decisions), 1), np.int64)
    return Impressions(
        user=[user for user, *_ in decisions],
        time=np.array([1000 * second for _, second, *_ in decisions], np.int64),
        profile=profile_ids([[]] * len(decisions)),
        histories=Histories(empty, empty, empty, empty[:, 0], empty.astype(np.bool_)),
        items=[np.array(items, np.int64) for _, _, items, _ in decisions],
        places=[np.arange(len(items)) for _, _, items, _ in decisions],
        clicked=[np.array(rewards) > 0 for *_, rewards in decisions],
        rewards=[np.array(rewards) for *_, rewards in decisions],
    )


def test_what_somebody_was_shown_they_did_not_choose_unasked() -> None:
    sequences = sequences_of([(0, 1), (1, 5), (2, 9)], [(1, 5), (3, 20)])
    slates = shown(("u0", 3, [1, 0], [1, 0]), ("u9", 4, [2, 3], [0, 0]), ("u1", 20, [3], [1]), ("u0", 30, [2], [0]))
    # u0 liked 0 before it was shown to them, 1 after; 2 was shown to them later. u1 was not shown 1.
    assert unasked(sequences, slates).tolist() == [True, False, True, True, False]
    assert unasked(sequences, slates.before(20_000)).tolist() == [True, False, True, True, True]
    assert unasked(sequences, Impressions.none()).all()


def test_what_was_liked_where_it_was_shown_is_held_against_the_rest_of_the_slate() -> None:
    # Item 0 weighs three times what 1 and 2 do: of one like it is to earn 3/4 beside one of them, 3/5 beside both.
    level = np.array([np.log(3), 0, 0, 0])
    slates = shown(("a", 0, [0, 1], [0, 1]), ("b", 0, [0, 1, 2], [1, 1, 0]), ("c", 0, [0, 2], [0, 0]), ("d", 0, [], []))
    earned = beyond_expected(slates, level, SETTINGS)
    wanted = [3 / 4 + 2 * 3 / 5, 1 / 4 + 2 / 5, 2 / 5, 0]
    assert earned == pytest.approx(np.log([11 / (10 + wanted[0]), 12 / (10 + wanted[1]), 10 / (10 + wanted[2]), 1]))
    assert not beyond_expected(Impressions.none(), level, SETTINGS).any()


def test_what_was_shown_long_ago_counts_less() -> None:
    slates = shown(("a", 0, [0, 1], [1, 0]), ("b", 6 * DAY, [1, 2], [0, 0]))
    earned = beyond_expected(slates, np.zeros(3), TrainingSettings(recent_days=6))
    one = np.exp(-1)
    assert earned == pytest.approx(np.log([(10 + one) / (10 + one / 2), 10 / (10 + one / 2), 1]))


def test_where_everything_was_shown_items_are_as_popular_as_they_proved(trained: Trained) -> None:
    sequences = sequences_of([(0, 5)], [(0, 5)])
    slates = shown(("u0", 3, [1, 0], [0, 1]), ("u1", 4, [1, 0], [0, 1]))
    lately = popularity(sequences, unasked(sequences, slates), 40, SETTINGS)
    assert not lately.level.any()
    assert not lately.level_now.any()
    model = deepcopy(trained.two_tower)
    model.item_tower.popularity.zero_()
    model.ids[2] = 0  # item 1 has no id, and was shown all the same
    judge_shown(model, slates, SETTINGS)
    temperature = model.item_tower.temperature
    assert model.item_vectors()[:3, -1] == pytest.approx(
        [temperature * np.log(12 / 11), temperature * np.log(10 / 11), 0]
    )


def test_without_drift_items_do_not_differ() -> None:
    sequences = sequences_of([(0, 0), (0, DAY)])
    lately = popularity(sequences, np.ones(2, np.bool_), 2, TrainingSettings(drift=False))
    assert not lately.level.any()
    assert not lately.level_now.any()


def test_an_item_is_as_popular_as_at_the_end_of_training(trained: Trained, settings: TrainingSettings) -> None:
    vectors = trained.two_tower.item_vectors()
    age = (trained.sequences.time.max() - trained.sequences.time) / (1000 * DAY)
    liked = np.bincount(trained.sequences.item, np.exp(-age / trained.metrics["recent_days"]), 40)
    counted, known = np.log1p(liked / 0.3), liked > 0
    # All of them are counted from what an unknown item is taken to be.
    expected = settings.temperature * (counted - counted[0]) + vectors[0, -1]
    assert vectors[known, -1] == pytest.approx(expected[known], rel=1e-4, abs=1e-6)
    assert known[0]


def test_an_unknown_item_weighs_in_a_softmax_what_known_ones_do_on_average(trained: Trained) -> None:
    model = deepcopy(trained.two_tower)
    model.item_tower.popularity[1:] = torch.arange(40) / 10
    model.ids[31:] = 0  # the ten most popular ones were not known
    worth = Worth(taste=0.25, popularity=1.5, unmet=-0.5)
    weight = 1.5 * model.user_tower.weight
    expect_of_unknown(model, np.arange(30), np.arange(35), worth)
    known = model.item_tower.popularity[1:31].numpy()
    assert np.diff(known) == pytest.approx([0.1] * 29, rel=1e-4)
    assert np.exp(weight * known).mean() == pytest.approx(1, rel=1e-5), "a level of 0 weighs 1"
    assert not model.item_vectors()[30:35, -1].any(), "known from slates alone"
    unmet = model.item_tower.popularity[36:].numpy()
    assert unmet == pytest.approx([-0.5] * 5), "nobody has ever met them"
    assert not model.item_vectors(content_only=True)[:, -1].any()


def test_an_item_that_is_known_from_slates_alone_is_an_unknown_one_that_proved_something(trained: Trained) -> None:
    """It was liked twelve times where it was shown; that nobody came to it by themselves is no news of it."""
    slates = shown(*((f"u{n}", 1_000 + n, [0, 1], [1.0, 0.0]) for n in range(12)))
    model = deepcopy(trained.two_tower)
    model.item_tower.popularity[1:] = torch.arange(40) / 10
    model.item_tower.popularity[1] = 0.0
    expect_of_unknown(model, np.arange(1, 40), np.arange(40), Worth(unmet=-0.5))
    assert model.item_tower.popularity[1] == 0
    other = float(model.item_tower.popularity[2])
    assert other < -1
    judge_shown(model, slates, SETTINGS)
    wanted = 12 / (1 + np.exp(other))
    assert float(model.item_tower.popularity[1]) == pytest.approx(np.log(22 / (10 + wanted)), rel=1e-3)


def test_where_nobody_came_to_anything_all_items_are_unknown(trained: Trained) -> None:
    model = deepcopy(trained.two_tower)
    model.item_tower.popularity.zero_()
    nothing = np.zeros(0, np.int64)
    expect_of_unknown(model, nothing, nothing, Worth())
    assert not model.item_tower.popularity.any()


def test_trust_is_what_later_positives_ask_for(trained: Trained, settings: TrainingSettings) -> None:
    model = deepcopy(trained.two_tower)
    first = [(item, item) for item in range(6)]
    histories = sequences_of(first).histories(np.array([0]), np.array([6]), model.history_length)
    vectors = model.item_vectors()
    taste = vectors[:, :-1] @ model.user_vectors(vectors, histories, np.zeros((1, USER_TOKENS), np.int64))[0, :-1]
    best, worst = int(np.argmax(taste)), int(np.argmin(taste))
    model.item_tower.popularity.zero_()
    model.item_tower.popularity[1 + worst] = 1.0  # everybody wants it lately, and nobody should

    def worth(item: int, known: int) -> Worth:
        people = sequences_of(*[[*first, (item, 10)] for _ in range(20)])
        everything = np.ones(20 * 7, np.bool_)
        items = np.arange(40)
        return fit_worth(model, people, np.full(20, known), everything, items, items, settings)

    def trust(found: Worth) -> float:
        return found.popularity / found.taste

    assert trust(worth(best, 6)) < 1 < trust(worth(worst, 6))
    assert worth(worst, 7) == Worth(), "nothing is held back"


def fitted_to(model: TwoTower, chosen: list[int], settings: TrainingSettings) -> tuple[Worth, float]:
    """Worth, and the weight of a level, where people who knew item 0 came to the items `chosen`, one each, and of 40
    items the even ones had been met, and were alike."""
    model.item_tower.popularity.zero_()
    model.item_tower.popularity[1::2] = 3.0
    people = sequences_of(*[[(0, 0), (item, 10)] for item in chosen])
    n, met = len(chosen), np.arange(0, 40, 2)
    worth = fit_worth(model, people, np.ones(n, np.int64), np.ones(2 * n, np.bool_), met, met, settings)
    return worth, worth.popularity * model.user_tower.weight


def test_what_nobody_has_met_is_as_popular_as_later_positives_say(trained: Trained, settings: TrainingSettings) -> None:
    model = deepcopy(trained.two_tower)
    chosen = [2 * n for n in range(1, 20)]
    worth, weight = fitted_to(model, [*chosen, *(item + 1 for item in chosen[::4])], settings)
    assert np.exp(weight * worth.unmet) == pytest.approx(5 / 19, rel=0.3), "a quarter as many came to them"


def test_what_nobody_has_met_is_never_more_than_unknown(trained: Trained, settings: TrainingSettings) -> None:
    worth, _ = fitted_to(deepcopy(trained.two_tower), [2 * n + 1 for n in range(20)], settings)
    assert worth.unmet == pytest.approx(0, abs=1e-9)
