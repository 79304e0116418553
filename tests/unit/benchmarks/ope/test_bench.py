"""The bench's goals and rows, from results made up by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.ope.bench import goals, rows
from benchmarks.ope.coat import debiased
from benchmarks.ope.open_bandit import both_ways
from benchmarks.ope.plot import draw
from offline_training.experiment.statistics import Interval
from offline_training.off_policy.estimators import HEADLINE


def results(coverage: float = 0.95, refused: int = 0, agrees: bool = True) -> dict[str, Any]:
    around = Interval(value=0.5, low=0.4, high=0.6)
    own = {"coverage": coverage, "rmse": 0.1, "bias": 0.0, "width": 0.2}
    names = ("RIPS", "RIPS, self-normalised", "doubly robust", HEADLINE, f"{HEADLINE}, t")
    policy = {"on_policy": around, "estimates": {HEADLINE: around}, "refused": None, "agrees": agrees}
    return {
        "obp": {"RIPS": 1e-12, "clipped": 1e-10},
        "coverage": {
            "kind": {
                "logs": 10,
                "refused": refused,
                "decisions": 100,
                "effective_size": 90.0,
                "estimators": dict.fromkeys(names, own),
            }
        },
        "open_bandit": {"women": {"random": policy | {"refused": "no overlap"}, "bts": policy}},
        "coat": {"models": {"plain": {"mse": 1.2}, "weighted": {"mse": 1.1}}},
    }


def test_everything_met() -> None:
    assert [goal.name for goal in goals(results()) if not goal.met] == []


def test_what_is_missed_is_named() -> None:
    missed = [goal.name for goal in goals(results(coverage=0.9, agrees=False)) if not goal.met]
    assert missed == ["coverage.kind.least", "open_bandit.women.bts.agrees"]


def test_what_is_refused_need_not_be_covered() -> None:
    assert not [goal for goal in goals(results(coverage=0.5, refused=9)) if not goal.met]


def test_without_obp_nothing_is_said_of_it() -> None:
    assert not [goal for goal in goals(results() | {"obp": None}) if goal.name.startswith("obp")]


def test_rows_and_the_picture(tmp_path: Path) -> None:
    table = rows(results())
    assert {len(row) for row in table} == {9}
    draw(results(), tmp_path / "ope.png")
    assert (tmp_path / "ope.png").read_bytes().startswith(b"\x89PNG")


def test_the_women_campaign_is_refused_where_there_is_no_overlap(tmp_path: Path) -> None:
    """Two policies over two items that click alike; in one campaign one of them shows an item once in 2,000 times."""
    folder, rng = tmp_path / "open-bandit-small", np.random.default_rng(0)
    folder.mkdir()
    for campaign in ("all", "men", "women"):
        pq.write_table(pa.table({"item_id": [0, 1]}), folder / f"items_{campaign}.parquet")
        for policy, rare in (("random", 0.5), ("bts", 0.0005 if campaign == "women" else 0.2)):
            item = (rng.random(2_000) >= rare).astype(np.int64)
            item[0] = 0
            table = {
                "timestamp": np.arange(2_000),
                "item_id": item,
                "position": np.ones(2_000, np.int64),
                "click": (rng.random(2_000) < 0.3).astype(np.int64),
                "propensity": np.where(item == 0, rare, 1 - rare),
                **{f"user_feature_{k}": ["a", "b"] * 1_000 for k in range(4)},
            }
            pq.write_table(pa.table(table), folder / f"{policy}_{campaign}.parquet")
    found = both_ways(tmp_path)
    assert found["women"]["random"]["refused"] is not None
    for campaign in ("all", "men"):
        for policy in ("random", "bts"):
            assert found[campaign][policy]["refused"] is None
            assert found[campaign][policy]["agrees"]


def test_weighting_brings_the_mean_of_chosen_ratings_to_that_of_drawn_ones(tmp_path: Path) -> None:
    folder, rng = tmp_path / "coat", np.random.default_rng(0)
    folder.mkdir()
    user, item = (index.ravel() for index in np.meshgrid(np.arange(40), np.arange(30), indexing="ij"))
    rating = 1.0 + (item % 5)
    propensity = 0.1 + 0.15 * (item % 5)
    chosen, drawn = rng.random(len(user)) < propensity, rng.random(len(user)) < 0.3
    columns = {"user_id": user, "item_id": item, "rating": rating, "estimated_propensity": propensity}
    pq.write_table(pa.table({k: v[chosen] for k, v in columns.items()}), folder / "train_self_selected.parquet")
    pq.write_table(pa.table({k: v[drawn] for k, v in columns.items()}), folder / "test_uniform_random.parquet")
    found = debiased(tmp_path, 0)["mean_rating"]
    assert found["plain"] > 3.6
    assert found["weighted"] == pytest.approx(3, abs=0.2)
