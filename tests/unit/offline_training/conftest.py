"""Training sets small enough to reason about: two groups of people, each of whom likes the items of one genre."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, token_ids
from offline_training.models import Trained, train_models
from offline_training.progress import silent
from offline_training.settings import TrainingSettings

ITEMS = [f"{genre}{n:02d}" for genre in ("drama", "horror") for n in range(20)]
USERS = [f"user{n:02d}" for n in range(40)]
LIKED_PER_USER = 12
DAY_MS = 86_400_000
SETTINGS = TrainingSettings(
    dimensions=8, history_length=6, epochs=20, batch_size=64, learning_rate=1e-2, clusters=3, edges_per_cluster=15
)


def genre(item: str) -> str:
    return item[:-2]


def taste(user: str) -> str:
    return ("drama", "horror")[int(user[-2:]) % 2]


def _write(directory: Path, name: str, columns: dict[str, pa.Array]) -> None:
    (directory / name).mkdir(parents=True)
    pq.write_table(pa.table(columns), directory / name / "part-0.parquet")


def _strings(values: list[list[str]]) -> pa.Array:
    return pa.array(values, pa.list_(pa.string()))


def write_sets(directory: Path, impressions: int = 0) -> Path:
    """Every user likes 12 random items of their genre, one a day; the last 3 days are the validation window."""
    rng = np.random.default_rng(0)
    likes = {
        user: rng.choice([item for item in ITEMS if genre(item) == taste(user)], LIKED_PER_USER, replace=False).tolist()
        for user in USERS
    }
    profile = {user: [f"group={taste(user)}"] for user in USERS}
    counts = {item: sum(item in liked for liked in likes.values()) for item in ITEMS}
    features = {
        feature.name: pa.array(
            np.log1p([counts[item] for item in ITEMS]) if "popularity" in feature.name else [1.0] * 40
        )
        for feature in ITEM_FEATURES
    }
    tokens = [token_ids([f"category={genre(item)}", f"title={item}"], ITEM_TOKENS).tolist() for item in ITEMS]
    _write(directory, "items", {"item": pa.array(ITEMS), "tokens": pa.array(tokens)} | features)
    _write(directory, "items_at_validation", {"item": pa.array(ITEMS)} | features)
    rows = [(user, day) for day in range(LIKED_PER_USER) for user in USERS]
    _write(
        directory,
        "examples",
        {
            "user": pa.array([user for user, _ in rows]),
            "item": pa.array([likes[user][day] for user, day in rows]),
            "time": pa.array([day * DAY_MS for _, day in rows]),
            "profile": _strings([profile[user] for user, _ in rows]),
            "history": _strings([likes[user][:day][::-1] for user, day in rows]),
            "validation": pa.array([day >= LIKED_PER_USER - 3 for _, day in rows]),
        },
    )
    times = pa.array([[day * DAY_MS for day in reversed(range(LIKED_PER_USER))] for _ in USERS])
    newest = _strings([likes[user][::-1] for user in USERS])
    people = {"user": pa.array(USERS), "profile": _strings([profile[user] for user in USERS])}
    past = {"history": newest, "history_times": times, "seen": newest, "seen_times": times}
    _write(directory, "users", people | past)
    shown = [rng.choice(ITEMS, 4, replace=False).tolist() for _ in range(impressions)]
    who = [USERS[n % len(USERS)] for n in range(impressions)]
    rewards = [[float(genre(i) == taste(user)) for i in items] for user, items in zip(who, shown, strict=True)]
    _write(
        directory,
        "impressions",
        {
            "user": pa.array(who, pa.string()),
            "decision": pa.array([f"d{n}" for n in range(impressions)], pa.string()),
            "time": pa.array([LIKED_PER_USER * DAY_MS + n for n in range(impressions)], pa.int64()),
            "history": _strings([likes[user][::-1] for user in who]),
            "profile": _strings([profile[user] for user in who]),
            "items": _strings(shown),
            "rewards": pa.array(rewards, pa.list_(pa.float64())),
        },
    )
    return directory


@pytest.fixture(scope="session")
def settings() -> TrainingSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def sets_with_impressions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), impressions=300)


@pytest.fixture(scope="session")
def trained(sets: Path) -> Trained:
    return train_models(sets, SETTINGS, silent)
