"""The bench from the command line's options to goals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ensemble import bench
from benchmarks.ensemble.arms import GRID
from benchmarks.ensemble.bench import goals, rows
from benchmarks.ensemble.figures import after, next_slates
from benchmarks.ensemble.worlds import CASES, DRIFT, RECURRENCE, STALE, Case
from benchmarks.pay.loop import Run
from benchmarks.pay.release import Prepared
from benchmarks.pay.world import World
from feature_store.contracts.errors import InvalidInput
from infra.settings import load
from offline_training.progress import silent
from tests.unit.benchmarks.ensemble.test_retraining import SETTINGS

OPTIONS: dict[str, Any] = {"only": None, "seeds": 1, "grid": False, "tuning": False, "out": None}


def figures(kind: str, ahead: float, half: float = 1.0, rebuilt: float = -1.0) -> dict[str, Any]:
    """A world in which the default is ahead of each peer by so much, and each earns 200."""
    spread = {"mean": ahead, "low": ahead - half, "high": ahead + half}
    new = {"shown": 10, "likes": 3}
    arm = {"likes": 200.0, **dict.fromkeys(("difference", "first_half", "second_half"), spread), "new_items": new}
    names = ("offline-only", "online-only", "initialise-once")
    return {
        "kind": kind,
        "arms": {name: arm | {"seconds": 1.0} for name in names},
        "ahead_of": dict.fromkeys(names, spread),
        "rebuilt": {"per_cent": rebuilt},
    }


def test_the_default_wins_where_both_sides_know_something_and_loses_nowhere() -> None:
    met = {goal.name: (goal.value, goal.met) for goal in goals({"w": figures(DRIFT, 1.0)})}
    assert met == {
        "w.ahead_of.offline-only": (0.0, True),  # .5 % +- .5 %
        "w.ahead_of.online-only": (0.0, True),
        "w.ahead_of.initialise-once": (0.5, True),
        "w.rebuilt_graph": (-1.0, True),
    }
    unsure = {goal.name: goal.met for goal in goals({"w": figures(RECURRENCE, 0.5, rebuilt=-2.5)})}
    assert unsure == {
        "w.ahead_of.offline-only": True,
        "w.ahead_of.online-only": True,
        "w.ahead_of.initialise-once": False,
        "w.rebuilt_graph": False,
    }
    behind = [goal.met for goal in goals({"w": figures(STALE, -2.5)})]
    assert behind == [False, False, False, True]  # -1.25 %


def test_a_row_for_each_arm_of_each_world() -> None:
    table = rows({"worlds": {"w": figures(DRIFT, 2.0)}})
    assert table[1] == ["w", "offline-only", "200.0", *["+2.0 ± 1.0"] * 4, "10", "3", "1.0"]
    assert len(table) == 4
    assert len({len(row) for row in table}) == 1


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidInput, match="needs --data"):
        bench.run(None, 0, silent, **OPTIONS)
    with pytest.raises(InvalidInput, match="There are: ml-100k/drift"):
        bench.run(Path(), 0, silent, **OPTIONS | {"only": "nowhere"})


def test_no_world_is_both_tuned_on_and_reported() -> None:
    assert {case.source for case in CASES if case.tuning}.isdisjoint(case.source for case in CASES if not case.tuning)
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_tiny_world_from_data_to_picture(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load().model_copy(update={"home": tmp_path, "training": SETTINGS})
    monkeypatch.setattr(bench, "load", lambda: settings)
    monkeypatch.setattr(bench, "TURNS", (1, 2))
    monkeypatch.setattr(bench, "GRID", GRID[-3:-1])
    case = Case("small", DRIFT, lambda data, name: prepared.world, lambda data, name: prepared.world, tuning=False)
    monkeypatch.setattr(bench, "CASES", (case,))
    results, found = bench.run(tmp_path, 3, silent, **OPTIONS | {"grid": True, "out": tmp_path / "ensemble.png"})
    own = results["worlds"]["small/drift"]
    assert results["seeds"] == [3]
    names = ["offline-only", "default", "online-only", "initialise-once", "begin-anew", "rebuilt-graph"]
    assert list(own["arms"]) == [*names, *(habit.name for habit in GRID[-3:-1])]
    assert own["ahead_of"]["default"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert own["ahead_of"]["omega-100-kappa-25"] == own["ahead_of"]["default"], "the default is one of the grid"
    assert len(set(own["releases"])) == 3
    assert [goal.name.rsplit(".", 1)[1] for goal in found][-1] == "rebuilt_graph"
    assert (tmp_path / "ensemble.png").stat().st_size > 10_000


def played(world: World, *likes: tuple[int, int]) -> Run:
    """Everybody comes in the order of their numbers; likes: visit, place."""
    visitors = len(world.visitors)
    shown, liked = (
        np.zeros((world.turns * visitors, world.slate), np.int64),
        np.zeros((world.turns * visitors, world.slate), np.bool_),
    )
    for visit, place in likes:
        liked[visit, place] = True
    return Run(np.tile(np.arange(visitors), world.turns), shown, liked, 1.0)


def test_the_time_after_a_drift_comes_in_spells_of_three_turns(world: World) -> None:
    base, ahead = played(world), played(world, (1 * 12, 0), (3 * 12, 0), (3 * 12 + 1, 0))
    found = after(world, {"base": [base], "arm": [ahead]}, "base", 1)
    assert [spell["turns"] for spell in found["arm"]] == [[1, 3]]
    assert found["arm"][0]["mean"] == pytest.approx(1000 * 3 / (12 * 9))
    found = after(world, {"base": [base], "arm": [ahead]}, "base", 0)
    assert [(spell["turns"], round(spell["mean"], 1)) for spell in found["arm"]] == [([0, 2], 9.3), ([3, 3], 55.6)]
    assert {spell["mean"] for spell in found["base"]} == {0.0}


def test_the_next_slates_are_those_that_begin_with_a_turn(world: World) -> None:
    without = played(world, (12, 0), (13, 0), (14, 0), (15, 0), (30, 0))
    with_it = played(world, (11, 0), (12, 0), (13, 0), (14, 0), (30, 0))
    found = next_slates(world, [with_it], [without], 1, 12)
    assert found["per_cent"] == pytest.approx(-25)  # 3 for 4 in visits 12 to 23
    assert found["mean"] == pytest.approx(-1000 / (12 * 3))
