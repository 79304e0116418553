"""The bench from the command line's options to goals."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.pay import bench
from benchmarks.pay.bench import goals, prepared_world, rows, world
from benchmarks.pay.release import Prepared
from benchmarks.pay.worlds import ML_100K, Entry
from feature_store.contracts.errors import InvalidInput
from infra.settings import load
from offline_training.progress import silent
from offline_training.settings import TrainingSettings

SETTINGS = TrainingSettings(dimensions=8, heads=1, layers=1, history_length=4, epochs=1, list_length=0)


def figures(frozen: float, ahead: float, half: float = 1.0, found: float = 0.0) -> dict[str, Any]:
    """A world in which greedy and default are ahead of the frozen order by so much."""

    def arm(mean: float) -> dict[str, Any]:
        spread = {"mean": mean, "low": mean - half, "high": mean + half}
        new = {"shown": 10, "likes": 3, "liked_1": 2, "liked_3": 1, "liked_5": found}
        parts = ("difference", "first_half", "second_half", "new_users")
        return {"likes": frozen + mean, **dict.fromkeys(parts, spread), "new_items": new, "seconds": 1.0}

    arms = {"frozen": arm(0.0), "greedy": arm(ahead), "default": arm(ahead), "item-oracle": arm(12.0)}
    return {"gains": True, "arms": arms}


def test_goals_hold_every_arm_against_the_frozen_order() -> None:
    met = {goal.name: (goal.value, goal.met) for goal in goals({ML_100K: figures(100, 9.5, found=4)})}
    assert met == {
        "ml-100k.greedy": (9.5, True),
        "ml-100k.default": (9.5, True),
        "ml-100k.greedy.surely": (8.5, True),
        "ml-100k.default.surely": (8.5, True),
        "ml-100k.default.gain": (9.5, True),
        "ml-100k.default.share_of_oracle": (9.5 / 12, True),
        "ml-100k.default.first_half": (9.5, True),
        "ml-100k.default.discovered": (1.0, False),
    }
    worse = {goal.name: goal.met for goal in goals({"other": figures(200, -0.8) | {"gains": False}})}
    assert worse == {"other.greedy": False, "other.default": True}  # -0.4 %


def test_a_row_for_each_arm_of_each_world() -> None:
    table = rows({"worlds": {"w": figures(100, 9.5)}})
    assert table[2][:4] == ["w", "greedy", "109.5", "+9.5 ± 1.0"]
    assert table[2][6] == "", "nobody is known"
    assert len({len(row) for row in table}) == 1


def test_what_is_missing_is_named() -> None:
    options: dict[str, Any] = {"only": None, "seeds": 1, "tuning": False, "out": None}
    with pytest.raises(InvalidInput, match="needs --data"):
        bench.run(None, 0, silent, **options)
    with pytest.raises(InvalidInput, match="There are: ml-100k"):
        bench.run(None, 0, silent, **options | {"only": "nowhere"})
    with pytest.raises(InvalidInput, match="no world 'nowhere'"):
        world("nowhere")


def test_a_tiny_world_from_data_to_picture(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load().model_copy(update={"home": tmp_path, "training": SETTINGS})
    monkeypatch.setattr(bench, "load", lambda: settings)
    entry = Entry(ML_100K, lambda data, name: prepared.world, "a small world", gains=True)
    monkeypatch.setattr(bench, "ENTRIES", (entry,))
    results, found = bench.run(tmp_path, 3, silent, only=None, seeds=2, tuning=False, out=tmp_path / "pay.png")
    own = results["worlds"][ML_100K]
    assert results["seeds"] == [3, 4]
    assert (own["users"], own["known_users"], own["items"], own["new_items"]) == (12, 4, 45, 5)
    assert list(own["arms"]) == ["frozen", "coin", "greedy", "default", "recent-popularity", "item-oracle"]
    assert len(found) == 8
    assert (tmp_path / "pay.png").stat().st_size > 10_000
    made = sorted((tmp_path / "cache" / "pay").iterdir())
    assert len(made) == 1
    again = prepared_world(entry, tmp_path, silent)
    assert sorted((tmp_path / "cache" / "pay").iterdir()) == made, "a release is trained once"
    assert own["release"] == again.release
