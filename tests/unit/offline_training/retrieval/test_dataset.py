"""Training sets as padded arrays."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, USER_TOKENS, token_ids
from offline_training.data.summary import TrainingSetSummary
from offline_training.retrieval.dataset import (
    profile_ids,
    read_catalogue,
    read_examples,
    read_features_at_validation,
    read_impressions,
    read_users,
)


def put(directory: Path, name: str, rows: list[dict[str, object]]) -> None:
    (directory / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows), directory / name / f"part-{len(list((directory / name).iterdir()))}.parquet"
    )


def item(name: str, value: float = 0.0) -> dict[str, object]:
    return {"item": name, "tokens": [1] * ITEM_TOKENS} | {feature.name: value for feature in ITEM_FEATURES}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    put(tmp_path, "items", [item("c", 3.0), item("a", 1.0)])
    put(tmp_path, "items", [item("b", 2.0)])
    return tmp_path


def put_users(sets: Path, **events: list[tuple[str, str, int]]) -> None:
    """Users' interactions, (item, kind, time)."""
    rows: list[dict[str, object]] = [
        {
            "user": user,
            "profile": ["g=1"],
            "items": [item for item, _, _ in done],
            "kinds": [kind for _, kind, _ in done],
            "positives": [kind.endswith("+") for _, kind, _ in done],
            "times": [time for _, _, time in done],
        }
        for user, done in events.items()
    ]
    put(sets, "users", rows)
    TrainingSetSummary(2, 3, 9, 9, 0, 1, 9, validation_time=6).save(sets)


def test_items_are_numbered_in_order_of_their_id(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    assert catalogue.items == ["a", "b", "c"]
    assert catalogue.features[:, 0].tolist() == [1, 2, 3]
    assert catalogue.tokens.shape == (3, ITEM_TOKENS)


def test_an_examples_history_is_what_was_liked_strictly_before(sets: Path) -> None:
    put_users(
        sets,
        u=[
            ("a", "r+", 1),
            ("b", "r-", 2),  # not liked
            ("b", "r+", 3),
            ("c", "r+", 3),  # at the same time as b: neither knows of the other
            ("gone", "r+", 4),
            ("a", "r+", 5),  # liked again: now the newest
            ("c", "click+", 6),
        ],
        v=[("c", "r+", 2), ("b", "r-", 9)],
    )
    examples = read_examples(sets, read_catalogue(sets), 2)
    found = zip(*(column.tolist() for column in (examples.time, examples.user, examples.item)), strict=True)
    # Oldest first, without the item that the catalogue lacks.
    assert list(found) == [(1, 0, 0), (2, 1, 2), (3, 0, 1), (3, 0, 2), (5, 0, 0), (6, 0, 2)]
    # Item number plus one, newest first, each once, two of them.
    assert examples.history.tolist() == [[0, 0], [0, 0], [1, 0], [1, 0], [3, 2], [1, 3]]
    assert examples.validation.tolist() == [False] * 5 + [True]
    assert examples.users == ["u", "v"]


def test_users_end_with_everything_they_did(sets: Path) -> None:
    put_users(sets, u=[("gone", "r+", 1), ("a", "r+", 2), ("b", "r+", 3), ("a", "r+", 4), ("c", "r-", 5)], v=[])
    users = read_users(sets, read_catalogue(sets), 3)
    assert users.history.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert (users.seen[0].tolist(), users.seen_times[0].tolist()) == ([0, 1, 0, 2], [2, 3, 4, 5])
    assert not len(users.seen[1])


def test_impressions_remember_what_was_liked(sets: Path) -> None:
    row: dict[str, object] = {
        "user": "u",
        "decision": "d",
        "time": 1,
        "profile": [],
        "history": ["c", "gone", "b", "a", "c"],
        "history_kinds": ["r+", "r+", "r-", "r+", "click+"],
        "history_times": [5, 4, 3, 2, 1],
        "items": ["a"],
        "rewards": [1.0],
    }
    put(sets, "impressions", [row])
    assert read_impressions(sets, read_catalogue(sets), 2).history.tolist() == [[3, 1]]


def test_rewards_stay_with_their_items(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    row: dict[str, object] = {
        "user": "u",
        "decision": "d",
        "time": 1,
        "history": [],
        "history_kinds": [],
        "profile": [],
        "items": ["b", "gone", "a"],
    }
    put(sets, "impressions", [row | {"rewards": [1.0, 0.5, 0.0]}])
    impressions = read_impressions(sets, catalogue, 3)
    assert (impressions.items[0].tolist(), impressions.rewards[0].tolist()) == ([1, 0], [1.0, 0.0])


def test_an_item_unknown_at_validation_has_the_defaults(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    put(sets, "items_at_validation", [item("b", 7.0)])
    features = read_features_at_validation(sets, catalogue)
    assert features[1].tolist() == [7.0] * len(ITEM_FEATURES)
    assert features[0].tolist() == [feature.default for feature in ITEM_FEATURES]


def test_profiles_are_hashed_as_in_serving() -> None:
    ids = profile_ids([["g=1", "age=2"], None, ["g=1", "age=2"]])
    assert ids[0].tolist() == ids[2].tolist() == token_ids(["g=1", "age=2"], USER_TOKENS).tolist()
    assert not ids[1].any()


def test_too_little_is_explained(sets: Path) -> None:
    with pytest.raises(InvalidInput, match=r"There is no training set at .*users"):
        read_examples(sets, read_catalogue(sets), 2)
    put_users(sets, u=[("a", "r+", 1)])
    with pytest.raises(InvalidInput, match="holds 1 positive interactions, at least 2"):
        read_examples(sets, read_catalogue(sets), 2)
