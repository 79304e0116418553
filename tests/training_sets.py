"""Training sets for tests: lakes of ratings, and what Spark makes of them."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from offline_training.data.summary import TrainingSetSummary
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from streaming.settings import RewardSettings
from tests.lakes import put

REWARDS = RewardSettings(window_seconds=60)

Interaction = tuple[str, str, float, int]  # user, item, rating, time


def put_ratings(lake: Path, *ratings: Interaction) -> None:
    """One file of ratings, in place of the last one."""
    rows = [
        {"user": user, "item": item, "type": "rating", "value": value, "time": time}
        for user, item, value, time in ratings
    ]
    put(lake / "interactions" / "a-0.parquet", columns.INTERACTIONS, rows)


def build(
    spark: SparkSession,
    lake: Path,
    *,
    training: TrainingSettings | None = None,
    rewards: RewardSettings = REWARDS,
    until_ms: int | None = None,
    exclude_items: frozenset[str] | None = None,
) -> tuple[Path, TrainingSetSummary]:
    """Where the sets of the lake are, and their summary."""
    out = lake.parent / "sets"
    summary = build_training_sets(
        spark,
        lake,
        out,
        training=training or TrainingSettings(list_length=0),
        rewards=rewards,
        until_ms=until_ms,
        exclude_items=exclude_items,
        progress=silent,
    )
    return out, summary


def read(out: Path, dataset: str, key: str) -> dict[Any, dict[str, Any]]:
    """The rows of a training set by their key."""
    rows = [row for file in sorted((out / dataset).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def known_before(user: dict[str, Any], moment: int) -> list[tuple[str, str]]:
    """Items and kinds that were known strictly before the moment."""
    done = zip(user["times"], user["items"], user["kinds"], strict=True)
    return [(item, kind) for time, item, kind in done if time < moment]
