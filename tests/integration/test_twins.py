"""Twins begin with the history of their person, and models learn from it once."""

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import redis
import redis.asyncio
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from feature_store.definitions import HistoryEvent
from feature_store.home import Home
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from feature_store.shown import Shown, pack
from feature_store.user_features import NOBODY, UserFeatures
from offline_training.data.summary import TrainingSetSummary
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import silent
from offline_training.retrieval.dataset import read_items, read_sequences
from offline_training.settings import TrainingSettings
from offline_training.simulation.twins import share_histories
from tests.events import KEYRING, decision, feedback
from tests.lakes import put, put_log
from tests.training_sets import REWARDS, put_ratings, read

ANN, BOB, CAT = map(KEYRING.user_key, ("ann", "bob", "cat"))
TWINS = {ANN: [KEYRING.user_key(f"ann~{n}") for n in range(3)], CAT: [KEYRING.user_key(f"cat~{n}") for n in range(3)]}
SETTINGS = RedisSettings(prefix="twins")


def sets_of(home: Home) -> Path:
    return home.runs / "one" / "training_sets"


def made(spark: SparkSession, home: Home) -> TrainingSetSummary:
    return build_training_sets(
        spark, home.aside, sets_of(home), training=TrainingSettings(list_length=0), rewards=REWARDS,
        until_ms=100, exclude_items=frozenset({"withheld"}), progress=silent,
    )  # fmt: skip


def test_twins_share_the_history_and_not_the_training(spark: SparkSession, tmp_path: Path, redis_url: str) -> None:
    home, online = Home(tmp_path), OnlineStore(redis.Redis.from_url(redis_url), SETTINGS)
    put_ratings(
        home.aside, (ANN, "a", 5, 10), (ANN, "b", 2, 20), (ANN, "withheld", 5, 30), (ANN, "c", 5, 100),
        (BOB, "a", 5, 40), (BOB, "b", 5, 50), (CAT, "a", 5, 200),
    )  # fmt: skip
    late = {"user": ANN, "item": "d", "type": "rating", "value": 5.0, "time": 90, "written": 110}
    put(home.aside / "interactions" / "late.parquet", columns.INTERACTIONS, [late])
    described = [{"user": ANN, "attributes": '{"sex":"F"}', "imported": 9}]
    put(home.aside / "users" / "users.parquet", columns.USERS, described)
    before, items = made(spark, home), read(sets_of(home), "items", "item")

    share_histories(home.aside, sets_of(home), online.users, TWINS, 100)
    past = [HistoryEvent("b", "rating-", 20), HistoryEvent("a", "rating+", 10)]
    for twin in TWINS[ANN]:
        assert known(redis_url, twin) == UserFeatures(["sex=f"], past, Shown(pack([("a", 10), ("b", 20)])))
    assert [known(redis_url, twin) for twin in TWINS[CAT]] == [NOBODY] * 3  # nothing was known of cat by then
    rows = pq.read_table(home.aside / "histories" / "twins.parquet").to_pylist()
    assert sorted((row["user"], row["item"]) for row in rows) == sorted(
        (twin, item) for twin in TWINS[ANN] for item in ("a", "b", "withheld")
    )

    assert made(spark, home) == dataclasses.replace(before, users=before.users + 3)
    assert read(sets_of(home), "items", "item") == items
    users = read(sets_of(home), "users", "user")
    for twin in TWINS[ANN]:
        assert (users[twin]["items"], users[twin]["kinds"]) == (["a", "b"], ["rating+", "rating-"])
        assert (users[twin]["positives"], users[twin]["profile"]) == ([False, False], ["sex=f"])
    assert (users[ANN]["positives"], users[BOB]["positives"]) == ([True, False], [True, True])

    shown = decision("ann~0", 1_000, ["b", "e"])
    put_log(home.aside, shown, feedback(shown, "e", received=1_010))
    made(spark, home)
    catalogue = read_items(sets_of(home))
    sequences = read_sequences(sets_of(home), catalogue)
    row = sequences.index[TWINS[ANN][0]]
    history = sequences.histories(np.array([row]), np.array([3]), 5)
    assert [catalogue.items[item] for item in history.liked_items(0)] == ["e", "a"]
    assert sequences.positive[sequences.start[row] : sequences.start[row + 1]].tolist() == [False, False, True]


def known(redis_url: str, user: str) -> UserFeatures:
    async def ask() -> UserFeatures:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await AsyncOnlineStore(client, SETTINGS).users.get(user)

    return asyncio.run(ask())
