"""Figures worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.pay.arms import GREEDY
from benchmarks.pay.figures import compare, new_items
from benchmarks.pay.loop import Run, run
from benchmarks.pay.release import Prepared
from benchmarks.pay.world import World

NOTHING = -1


def played(world: World, *likes: tuple[int, int, int, int]) -> Run:
    """A run in which visitors came by number and saw items 0, 1, 2; likes: (turn, visitor, place, item) instead."""
    visits = world.turns * len(world.visitors)
    shown, liked = np.tile(np.arange(3), (visits, 1)), np.zeros((visits, 3), np.bool_)
    for turn, visitor, place, item in likes:
        visit = turn * len(world.visitors) + visitor
        shown[visit, place], liked[visit, place] = item, True
    return Run(np.tile(np.arange(len(world.visitors)), world.turns), shown, liked, 2.0)


def test_an_arm_compared_with_itself_differs_by_nothing(prepared: Prepared) -> None:
    runs = [run(prepared, GREEDY, seed) for seed in (0, 1)]
    found = compare(prepared.world, {"a": runs, "b": runs}, "a")["b"]
    for part in ("difference", "first_half", "second_half", "known_users", "new_users"):
        assert found[part] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_differences_are_paired_by_user_after_the_mean_over_seeds(world: World) -> None:
    # 12 visitors, 4 turns of 3 places: an impression is 1/144 of all, one of a visitor's 12.
    base = [played(world, (0, 0, 0, 5)), played(world, (0, 0, 0, 5))]
    ahead = [played(world, (0, 0, 0, 5), (1, 0, 1, 6), (3, 7, 0, 5)), played(world, (0, 0, 0, 5), (3, 7, 0, 5))]
    found = compare(world, {"base": base, "arm": ahead}, "base")
    assert found["base"]["likes"] == pytest.approx(1000 / 144)
    assert found["arm"]["likes"] == pytest.approx(1000 * 2.5 / 144)
    # visitor 0 is ahead by half a like (the mean of 1 and 0), visitor 7 by one
    per_user = 1000 / 12 * np.array([0.5, 1.0, *[0.0] * 10])
    half = 1.96 * per_user.std(ddof=1) / np.sqrt(12)
    assert found["arm"]["difference"] == pytest.approx(
        {"mean": per_user.mean(), "low": per_user.mean() - half, "high": per_user.mean() + half}
    )
    assert found["arm"]["first_half"]["mean"] == pytest.approx(1000 * 0.5 / 72)
    assert found["arm"]["second_half"]["mean"] == pytest.approx(1000 / 72)
    assert found["arm"]["known_users"]["mean"] == pytest.approx(1000 * 0.5 / 48)  # visitors 0 to 3
    assert found["arm"]["new_users"]["mean"] == pytest.approx(1000 / 96)
    assert found["arm"]["by_turn"] == pytest.approx([27.78, 13.89, 0, 27.78])
    assert found["arm"]["seconds"] == 2.0


def test_whoever_comes_twice_in_a_turn_counts_twice_in_it(world: World) -> None:
    twice = played(world, (0, 0, 0, 5), (0, 1, 0, 5))
    twice.visitor[[1, 12]] = [0, 1]  # visitor 0 comes twice in turn 0, visitor 1 twice in turn 1
    found = compare(world, {"base": [played(world)], "arm": [twice]}, "base")["arm"]
    per_user = 1000 / 12 * np.array([2.0, *[0.0] * 11])
    assert found["difference"]["high"] == pytest.approx(per_user.mean() + 1.96 * per_user.std(ddof=1) / np.sqrt(12))
    assert found["by_turn"] == pytest.approx([55.56, 0, 0, 0])


def test_without_known_users_nothing_is_said_of_them(world: World) -> None:
    strangers = replace(world, visitors=np.arange(8, 20))
    found = compare(strangers, {"base": [played(strangers)]}, "base")["base"]
    assert "known_users" not in found
    assert found["new_users"]["mean"] == 0


def test_new_items_count_when_they_were_shown_and_liked(world: World) -> None:
    first = len(world.past.items)
    once = played(world, (2, 0, 0, first), (2, 1, 0, first), (2, 2, 0, first), (2, 3, 0, first + 1))
    once.shown[3 * 12] = [first, NOTHING, first + 4]  # shown, not liked
    nothing = played(world, (0, 0, 0, 5))
    assert new_items(world, [once, once]) == {"shown": 6, "likes": 4, "liked_1": 2, "liked_3": 1, "liked_5": 0}
    assert new_items(world, [once, nothing]) == {"shown": 3, "likes": 2, "liked_1": 1, "liked_3": 0.5, "liked_5": 0}
