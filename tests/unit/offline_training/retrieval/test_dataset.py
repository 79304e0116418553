"""Training sets as padded arrays."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, USER_TOKENS, token_ids
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


def example(user: str, name: str, time: int, history: list[str]) -> dict[str, object]:
    return {"user": user, "item": name, "time": time, "profile": ["g=1"], "history": history, "validation": time > 5}


def test_items_are_numbered_in_order_of_their_id(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    assert catalogue.items == ["a", "b", "c"]
    assert catalogue.features[:, 0].tolist() == [1, 2, 3]
    assert catalogue.tokens.shape == (3, ITEM_TOKENS)


def test_histories_are_padded_cut_and_free_of_unknown_items(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    rows = [
        example("u", "c", 9, ["b", "gone", "a", "c"]),
        example("v", "a", 1, []),
        example("v", "gone", 2, ["a"]),
    ]
    put(sets, "examples", rows)
    examples = read_examples(sets, catalogue, 2)
    assert examples.item.tolist() == [0, 2], "oldest first, without the item that the catalogue lacks"
    assert examples.history.tolist() == [[0, 0], [2, 1]], "item number plus one, newest first"
    assert examples.validation.tolist() == [False, True]
    assert [examples.users[user] for user in examples.user] == ["v", "u"]


def test_seen_items_keep_their_times(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    row: dict[str, object] = {
        "user": "u",
        "profile": [],
        "history": ["a"],
        "history_times": [3],
        "seen": ["gone", "a"],
        "seen_times": [4, 3],
    }
    put(sets, "users", [row])
    users = read_users(sets, catalogue, 3)
    assert users.history.tolist() == [[1, 0, 0]]
    assert (users.seen[0].tolist(), users.seen_times[0].tolist()) == ([0], [3])


def test_rewards_stay_with_their_items(sets: Path) -> None:
    catalogue = read_catalogue(sets)
    row: dict[str, object] = {
        "user": "u",
        "decision": "d",
        "time": 1,
        "history": [],
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
    with pytest.raises(InvalidInput, match=r"There is no training set at .*examples"):
        read_examples(sets, read_catalogue(sets), 2)
    put(sets, "examples", [example("u", "a", 1, [])])
    with pytest.raises(InvalidInput, match="holds 1 positive interactions, at least 2"):
        read_examples(sets, read_catalogue(sets), 2)
