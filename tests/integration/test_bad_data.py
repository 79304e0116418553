"""Data that nobody would wish for: each ends in a clear message or in a model that answers."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.user_features import NOBODY
from offline_training.data.importer import import_data
from offline_training.data.lake import read_catalogue
from offline_training.data.sources import Mapping
from offline_training.data.staging import DatasetReport
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import silent
from offline_training.release.write import write_release
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained, train_models
from offline_training.training_data import read_training_data
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from streaming.settings import RewardSettings

KEYRING = Keyring(b"a secret for the tests")
TRAINING = TrainingSettings(
    dimensions=8, history_length=4, layers=1, epochs=1, ranker_epochs=1, clusters=2, edges_per_cluster=5
)
HOUR = 3600


def put(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def rating(user: str, item: str, hour: int, value: object = 5) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": 1_600_000_000 + hour * HOUR, "rating": value}


def imported(source: Path, home: Path) -> DatasetReport:
    return import_data(source, Home(home), KEYRING, Mapping(), ManualClock(), silent).interactions


def trained(spark: SparkSession, home: Path) -> Trained:
    build_training_sets(
        spark,
        home / "lake",
        home / "sets",
        training=TRAINING,
        rewards=RewardSettings(),
        until_ms=None,
        exclude_items=None,
        progress=silent,
    )
    return train_models(read_training_data(home / "sets", TRAINING), home / "checkpoints", TRAINING, silent)


def answers(home: Path, model: Trained) -> None:
    """The release serves: somebody unknown gets a finite prediction for every item."""
    release = write_release(home / "releases", model, TRAINING, None, 1)
    snapshot = Snapshot.load(home / "releases", release)
    user = encode_user(snapshot, NOBODY, Request(slate_size=1))
    everything = np.arange(snapshot.size)
    predicted = snapshot.towers.predict(candidate_features(snapshot, user, everything))
    assert len(predicted) == len(model.catalogue.items)
    assert ((predicted >= 0) & (predicted <= 1)).all()


def test_one_user(spark: SparkSession, tmp_path: Path) -> None:
    put(tmp_path / "in" / "ratings.csv", *(rating("ann", f"i{n}", n) for n in range(30)))
    imported(tmp_path / "in", tmp_path)
    answers(tmp_path, trained(spark, tmp_path))


def test_one_item(spark: SparkSession, tmp_path: Path) -> None:
    put(tmp_path / "in" / "ratings.csv", *(rating(f"u{n}", "only", n) for n in range(30)))
    imported(tmp_path / "in", tmp_path)
    answers(tmp_path, trained(spark, tmp_path))


def test_everything_at_once(spark: SparkSession, tmp_path: Path) -> None:
    """Ids as long as they may be and longer, values that are no ratings, features that are null, NaN and of another
    type in the second import, three of ten items without a description."""
    rng = np.random.default_rng(3)
    users, items = [f"{n}" + "ü" * 255 for n in range(10)], [f"{n}" + "x" * 255 for n in range(10)]
    rows = [rating(user, items[i], int(rng.integers(500))) for user in users for i in rng.permutation(10)[:6]]
    bad = [
        *(rating(users[0], items[0], 501, value) for value in ("inf", "-inf", "nan", "", "five")),
        rating(users[0] + "ü", items[0], 502),
        rating(users[0], items[0] + "x" * 100_000, 503),
    ]
    put(tmp_path / "in" / "ratings.csv", *rows, rating(users[0], items[1], 504, "1e300"), *bad)
    described = items[:7]
    years = [2000.0, None, math.nan, math.inf, 2001.0, 2002.0, 2003.0]
    table = {"item_id": pa.array(described), "year": pa.array(years, pa.float64()), "flag": pa.nulls(7, pa.bool_())}
    pq.write_table(pa.table(table), tmp_path / "in" / "items.parquet")
    report = imported(tmp_path / "in", tmp_path)
    assert report.accepted == len(rows) + 1
    assert report.rejected == {
        "rating is not finite": 2,
        "rating is missing": 1,
        "rating is not a number": 2,
        "user_id has more than 256 characters": 1,
        "item_id has more than 256 characters": 1,
    }
    put(tmp_path / "again" / "ratings.csv", *(rating(user, items[0], 600, 2) for user in users))
    retyped = [{"item_id": described[0], "year": "about 1980", "flag": 7}]
    put(tmp_path / "again" / "items.csv", *retyped)
    imported(tmp_path / "again", tmp_path)
    catalogue = read_catalogue(tmp_path / "lake")
    assert [item.attributes for item in map(catalogue.get, described[:4]) if item] == [
        {"year": "about 1980", "flag": 7},
        {},
        {},
        {},
    ]
    model = trained(spark, tmp_path)
    assert len(model.catalogue.items) == 10
    assert (model.catalogue.tokens.any(axis=1)).sum() == 4  # of the seven described, that have an attribute left
    answers(tmp_path, model)


def test_a_type_that_makes_no_sense_is_refused_as_a_whole(tmp_path: Path) -> None:
    columns = {"user_id": ["a"], "item_id": ["b"], "timestamp": [1], "rating": [[5.0]]}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "ratings.parquet")
    with pytest.raises(InvalidInput, match=r"ratings\.parquet: Column rating holds list.*Convert the column"):
        imported(tmp_path / "in", tmp_path)
