"""The bench from the command line's options to goals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.order import bench
from benchmarks.order.bench import figures, goals, rows
from benchmarks.order.orders import POPULARITY, RECENT_POPULARITY, RETRIEVAL, SERVED, Asked
from benchmarks.pay.release import Prepared
from feature_store.contracts.errors import InvalidInput
from infra.settings import load
from offline_training.progress import silent
from offline_training.settings import TrainingSettings

SETTINGS = TrainingSettings(dimensions=8, heads=1, layers=1, history_length=4, epochs=1, list_length=0)
RANKER = {"ranker": {"ranker_ece": 0.03}}


def answers(served: float) -> Asked:
    """Three people, the first of them known; the others get .1 of everything from every other order."""
    quality = {name: np.full((3, 3), 0.1) for name in (RETRIEVAL, RECENT_POPULARITY, POPULARITY)}
    own = np.array([[0.2, 0.2, np.nan], [served, 0.1, 0.1], [served, 0.1, 0.1]])
    return Asked(quality | {SERVED: own}, np.array([True, False, False]), np.array([[2.0, 0.2, 0.1], [2.0, 0.3, 0.3]]))


def test_everybody_counts_once_with_their_mean_over_seeds() -> None:
    found = figures([answers(0.0), answers(0.4)])
    assert found["everybody"]["users"] == 3
    assert found["known_users"]["orders"][SERVED]["ndcg@10"] == pytest.approx(0.2)
    assert found["new_users"]["orders"][SERVED]["ndcg@10"] == pytest.approx(0.2)
    ahead = found["everybody"]["ahead"][RETRIEVAL]
    assert ahead["ndcg@10"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})
    assert ahead["recall@50"]["mean"] == pytest.approx(0.1 / 3)
    assert ahead["recall@50"]["low"] == pytest.approx(0.1 / 3 - 1.96 * 0.1 / 3)
    assert ahead["gauc"]["mean"] == pytest.approx(0.0), "of those for whom it says something"
    assert found["ece"] == pytest.approx(0.05)


def test_goals_are_that_it_is_nowhere_behind() -> None:
    met = {goal.name: goal.met for goal in goals({"w": figures([answers(0.0)]) | RANKER})}
    behind = {f"w.ndcg@10 over {other}" for other in (RETRIEVAL, RECENT_POPULARITY)}
    assert {name for name, reached in met.items() if not reached} == behind | {"w.ranker_ece"}
    assert len(met) == 7


def test_a_row_for_each_order_and_part_of_the_people() -> None:
    table = rows({"worlds": {"w": figures([answers(0.4)]) | RANKER}})
    assert len(table) == 1 + 3 * 4
    assert len({len(row) for row in table}) == 1
    assert table[1][:5] == ["w", "everybody", "3", RETRIEVAL, "0.1000 +0.2333 ± 0.1307"]


def test_what_is_missing_is_named() -> None:
    options: dict[str, Any] = {"only": None, "seeds": 1, "tuning": False}
    with pytest.raises(InvalidInput, match="needs --data"):
        bench.run(None, 0, silent, **options)
    with pytest.raises(InvalidInput, match="There are: ml-100k"):
        bench.run(Path(), 0, silent, **options | {"only": "nowhere"})


def test_a_tiny_world_from_data_to_goals(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load().model_copy(update={"home": tmp_path, "training": SETTINGS})
    monkeypatch.setattr(bench, "load", lambda: settings)
    monkeypatch.setattr(bench, "plain", lambda source, data, name: prepared.world)
    results, found = bench.run(tmp_path, 3, silent, only="ml-100k/earlier", seeds=2, tuning=True)
    assert results["seeds"] == [1_003, 1_004]
    own = results["worlds"]["ml-100k/earlier"]
    assert [own[part]["users"] for part in ("everybody", "known_users", "new_users")] == [12, 4, 8]
    assert len(found) == 7
    assert len(list((tmp_path / "cache" / "pay").iterdir())) == 2
