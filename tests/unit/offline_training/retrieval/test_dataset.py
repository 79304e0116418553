"""Training sets as arrays."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, USER_TOKENS, kind_id, token_ids
from offline_training.data.summary import TrainingSetSummary
from offline_training.retrieval.dataset import (
    profile_ids,
    read_features_at_validation,
    read_impressions,
    read_items,
    read_sequences,
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
    catalogue = read_items(sets)
    assert catalogue.items == ["a", "b", "c"]
    assert catalogue.features[:, 0].tolist() == [1, 2, 3]
    assert catalogue.tokens.shape == (3, ITEM_TOKENS)


def test_sequences_know_what_was_known_strictly_before(sets: Path) -> None:
    put_users(
        sets,
        u=[
            ("a", "r+", 1),
            ("b", "r-", 2),
            ("b", "r+", 3),
            ("c", "r+", 3),  # at the same time as b: neither knows of the other
            ("gone", "r+", 4),
            ("a", "r+", 5),
            ("c", "click+", 6),
        ],
        v=[("c", "r+", 2), ("b", "r-", 9)],
    )
    sequences = read_sequences(sets, read_items(sets))
    assert sequences.users == ["u", "v"]
    assert sequences.start.tolist() == [0, 6, 8]
    # Without the item that the catalogue lacks.
    assert sequences.item.tolist() == [0, 1, 1, 2, 0, 2, 2, 1]
    assert [sequences.kinds[kind] for kind in sequences.kind] == ["r+", "r-", "r+", "r+", "r+", "click+", "r+", "r-"]
    assert sequences.positive.tolist() == [True, False, True, True, True, True, True, False]
    assert sequences.visible.tolist() == [0, 1, 2, 2, 4, 5, 0, 1]
    assert sequences.before(3).tolist() == [2, 1]


def test_impressions_remember_what_was_done(sets: Path) -> None:
    row: dict[str, object] = {
        "user": "u",
        "decision": "d",
        "time": 1,
        "profile": [],
        "history": ["c", "gone", "b", "a", "c"],
        "history_kinds": ["r+", "r+", "r-", "r+", "click+"],
        "history_times": [5_000, 4_000, 2_000, 1_000, 0],
        "items": ["a"],
        "places": [0],
        "clicked": [True],
        "rewards": [1.0],
    }
    put(sets, "impressions", [row])
    read = read_impressions(sets, read_items(sets), 3).histories
    # Oldest first, the newest three of those that the catalogue holds.
    assert read.item.tolist() == [[1, 2, 3]]
    assert read.kind.tolist() == [[kind_id("r+"), kind_id("r-"), kind_id("r+")]]
    assert read.gap.tolist() == [[0, 2, 3]]  # 1 + floor(log2(1 + seconds)): 1 and 3 seconds
    assert (read.length.tolist(), read.liked.tolist()) == ([3], [[True, False, True]])
    assert read.liked_items(0).tolist() == [2, 0]


def test_rewards_stay_with_their_items(sets: Path) -> None:
    catalogue = read_items(sets)
    row: dict[str, object] = {
        "user": "u",
        "decision": "d",
        "time": 1,
        "history": [],
        "history_kinds": [],
        "history_times": [],
        "profile": [],
        "items": ["b", "gone", "a"],
    }
    row |= {"places": [1, 2, 4], "clicked": [True, False, False]}
    put(sets, "impressions", [row | {"rewards": [1.0, 0.5, 0.0]}])
    impressions = read_impressions(sets, catalogue, 3)
    assert (impressions.items[0].tolist(), impressions.rewards[0].tolist()) == ([1, 0], [1.0, 0.0])
    assert (impressions.places[0].tolist(), impressions.clicked[0].tolist()) == ([1, 4], [True, False])


def test_an_item_unknown_at_validation_has_the_defaults(sets: Path) -> None:
    catalogue = read_items(sets)
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
        read_sequences(sets, read_items(sets))
    put_users(sets, u=[("a", "r+", 1)])
    with pytest.raises(InvalidInput, match="holds 1 positive interactions, at least 2"):
        read_sequences(sets, read_items(sets))
