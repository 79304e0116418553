"""The world of recovering rewards, and what its bench asks for."""

import numpy as np
import pytest

from benchmarks.recover import world as made
from benchmarks.recover.bench import NEVER, NO_RULE, goals, rows, single
from benchmarks.recover.world import ITEMS, World
from online_serving.settings import ServingSettings


def test_what_was_shown_is_liked_less_and_recovers() -> None:
    world = World(0)
    fresh = world.chances(0, np.full(ITEMS, np.inf))
    # i0 is a drama: of nine tenths lost 63 % are back after a day; i2, in space, needs 20 of them.
    assert world.chances(0, np.zeros(ITEMS)) == pytest.approx(fresh * 0.1)
    assert world.chances(0, np.ones(ITEMS))[0] == pytest.approx(fresh[0] * (1 - 0.9 * np.exp(-1)))
    assert world.chances(0, np.full(ITEMS, 20.0))[2] == pytest.approx(fresh[2] * (1 - 0.9 * np.exp(-1)))
    assert World(0, drop=0.0).chances(0, np.zeros(ITEMS)) == pytest.approx(fresh)


def test_rules_are_those_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "USERS", 4)
    monkeypatch.setattr(made, "DAYS", 30)
    monkeypatch.setattr(made, "VISITS", 2.0)  # every day
    constant, tired = World(0, drop=0.0), World(0)
    for world in (constant, tired):
        assert world.play(single(0)).tolist() == world.play(NO_RULE).tolist()
        assert world.play(single(30)).tolist() == world.play(NEVER).tolist()  # nobody has been there for longer
    everything = ServingSettings(repeat_days=0, category_repeat_days=dict.fromkeys(made.RECOVERING, 7))
    assert tired.play(everything).tolist() == tired.play(single(7)).tolist()
    assert (constant.play(None) >= constant.play(NO_RULE)).all()


def test_goals_are_of_the_lower_ends() -> None:
    world = {arm: {"likes_per_visit": 1.0, "gain": [0.2, low, 0.3]} for arm, low in [("an interval", 0.1)]}
    world["by category"] = {"likes_per_visit": 1.1, "gain": [0.1, -0.1, 0.3]}
    results = {"recovering": world, "constant": world}
    assert [(goal.name, goal.value, goal.met) for goal in goals(results)] == [
        ("an_interval.gain_low", 0.1, True), ("by_category.gain_low", -0.1, False),
    ]  # fmt: skip
    assert rows(results)[1] == ["recovering", "an interval", "1.0000", "+20.0%", "+10.0%", "+30.0%"]
