"""Training sets small enough to reason about: two groups of people, each of whom likes the items of one genre."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, token_ids
from offline_training.data.summary import TrainingSetSummary
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
    days = list(range(LIKED_PER_USER))
    _write(
        directory,
        "users",
        {
            "user": pa.array(USERS),
            "profile": _strings([profile[user] for user in USERS]),
            "profile_time": pa.array([0] * len(USERS), pa.int64()),
            "items": _strings([likes[user] for user in USERS]),
            "kinds": _strings([["click+"] * LIKED_PER_USER for _ in USERS]),
            "positives": pa.array([[True] * LIKED_PER_USER for _ in USERS]),
            "times": pa.array([[day * DAY_MS for day in days] for _ in USERS]),
        },
    )
    lists = [[other for other in ITEMS if genre(other) == genre(item) and other != item] for item in ITEMS]
    scores = pa.array([np.linspace(1, 0.1, len(others)).tolist() for others in lists])
    for name in ("item_lists", "item_lists_at_validation"):
        _write(directory, name, {"item": pa.array(ITEMS), "items": _strings(lists), "scores": scores})
    TrainingSetSummary(
        users=len(USERS),
        items=len(ITEMS),
        interactions=len(USERS) * LIKED_PER_USER,
        positives=len(USERS) * LIKED_PER_USER,
        impressions=impressions,
        first_time=0,
        last_time=days[-1] * DAY_MS,
        validation_time=days[-3] * DAY_MS,
    ).save(directory)
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
            "history_kinds": _strings([["click+"] * LIKED_PER_USER for _ in who]),
            "history_times": pa.array([[day * DAY_MS for day in days[::-1]] for _ in who], pa.list_(pa.int64())),
            "profile": _strings([profile[user] for user in who]),
            "items": _strings(shown),
            "places": pa.array([[0, 1, 2, 3] for _ in who], pa.list_(pa.int32())),
            "clicked": pa.array([[worth > 0 for worth in row] for row in rewards], pa.list_(pa.bool_())),
            "rewards": pa.array(rewards, pa.list_(pa.float64())),
        },
    )
    return directory
