"""Worlds made of real logs: what is known before the moment, and what is liked after it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.pay.world import TURNS, by_time, opinions, schedule
from benchmarks.pay.worlds import ENTRIES, SUDDEN, Source, as_it_happened, delayed, drifting
from benchmarks.retrieval.datasets import Dataset
from feature_store.contracts.catalogue import Item
from offline_training.evaluation.baselines import Interactions
from offline_training.simulation.world import withheld_items

#  user 0 likes a, dislikes b, later likes c and d; user 1 comes later, likes a and dislikes c; user 2 only before
LOG = Interactions(
    np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 3, 0, 2, 3]), 1_000 * np.array([1, 2, 8, 9, 8, 9, 3]), 3, 4
)
KINDS = np.array(["rating+", "rating-", "rating+", "rating+", "rating+", "rating-", "rating+"])
DATASET = Dataset(LOG, KINDS, KINDS == "rating+", [Item(id=name) for name in "abcd"], [["age=1"], [], []])


def test_what_was_before_is_known_and_what_came_after_is_liked() -> None:
    world = by_time("w", DATASET, 5_000, withheld=0.0)
    assert [item.id for item in world.items] == ["a", "b", "c", "d"]
    assert world.past.log.user.tolist() == [0, 0, 2]
    assert world.visitors.tolist() == [0, 1]
    assert world.likes.tolist() == [[[0, 0, 1, 1], [1, 0, 0, 0]]]
    assert world.returning.tolist() == [True, False]
    assert (world.turns, world.newcomers) == (TURNS, ())


def test_withheld_items_are_not_in_the_past_and_enter_over_the_first_turns() -> None:
    world = by_time("w", DATASET, 5_000, withheld=0.5, until=0.5)
    entering = withheld_items("abcd", 0.5, 0)
    assert [item.id for item in world.items] == [*sorted(set("abcd") - set(entering)), *entering]
    assert [new.item.id for new in world.newcomers] == entering
    assert [new.turn for new in world.newcomers] == [5, 10]  # ceil(19 / 4), ceil(19 / 2)
    names = [item.id for item in world.items]
    old = [item.id for item in world.past.items]
    assert {old[row] for row in world.past.log.item} == {"a", "b", "d"} & set(old)
    assert {names[k] for k in np.flatnonzero(world.likes[0, 0])} == {"c", "d"}


def test_a_stale_release_knows_less_of_the_same_people() -> None:
    world = by_time("w", DATASET, 5_000, trained_until=2_000, withheld=0.0)
    assert len(world.past.log.user) == 1
    assert world.likes.tolist() == by_time("w", DATASET, 5_000, withheld=0.0).likes.tolist()


def test_no_more_people_come_than_wanted() -> None:
    world = by_time("w", DATASET, 5_000, withheld=0.0, most=1)
    assert world.likes.shape == (1, 1, 4)


def test_opinions_are_the_same_whenever_they_are_asked_and_agree_between_tastes() -> None:
    world = by_time("w", DATASET, 5_000, withheld=0.0)
    unsure = np.stack([np.full((2, 4), 0.3), np.full((2, 4), 0.6)]).astype(np.float32)
    doubtful = replace(world, likes=unsure)
    found = opinions(doubtful, 5)
    assert (found == opinions(doubtful, 5)).all()
    assert (found[0] <= found[1]).all()
    assert (opinions(world, 5) == (world.likes > 0)).all()


def test_names_of_worlds_are_unique_and_none_is_tuned_on_and_reported() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)


def test_tastes_that_change_are_liked_by_others_of_the_same_number() -> None:
    world = drifting(Source(lambda _: DATASET), SUDDEN, Path(), "w")
    before, after = world.likes
    assert sorted(before.sum(axis=0)) == sorted(after.sum(axis=0))
    assert world.tastes.tolist() == [0] * 9 + [1] * 10


def test_late_feedback_is_a_tenth_of_the_visits_late() -> None:
    world = delayed(Source(lambda _: DATASET), Path(), "w")
    assert world.delay == int(0.1 * 19 * len(world.visitors))
    assert world.seen[:3] == (1.0, 0.9, 0.9**2)


def test_visitors_come_when_they_rated() -> None:
    world = as_it_happened(Source(lambda _: DATASET), Path(), "w")
    assert world.times is not None
    # after 7,000 user 0 rated at 8,000 and 9,000, user 1 too: the middle of 19 visits is in between
    assert world.times.shape == (2, TURNS)
    assert world.times[:, TURNS // 2].tolist() == [8_500, 8_500]
    first = schedule(world, 0)
    assert np.bincount(first).tolist() == [TURNS, TURNS]
    assert (first == schedule(world, 0)).all()
