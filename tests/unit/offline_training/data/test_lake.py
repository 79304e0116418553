"""The split time, the catalogue's newest words, item features."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts import columns
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import UNKNOWN_ITEM, token_ids
from offline_training.data.item_features import all_items, item_features, write_items
from offline_training.data.lake import interacted_items, read_catalogue, split_time, write_profiles


def put(path: Path, schema: pa.Schema, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def interaction(time: int) -> dict[str, Any]:
    return {"user": "u", "item": "i", "type": "click", "value": 1.0, "time": time}


def test_the_split_is_a_share_of_the_time_span_not_of_the_rows(tmp_path: Path) -> None:
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS, *(interaction(t) for t in (100, 101, 102)))
    put(tmp_path / "interactions" / "b.parquet", columns.INTERACTIONS, interaction(200))
    assert split_time(tmp_path) == 180
    assert split_time(tmp_path, share=0.5) == 150


def test_an_empty_lake_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no interactions\. Import some with `matchloop import DIR`"):
        split_time(tmp_path)
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS)
    with pytest.raises(InvalidInput, match="holds no interactions"):
        split_time(tmp_path)


def test_the_newest_change_of_the_catalogue_counts(tmp_path: Path) -> None:
    for item in ("kept", "changed", "deleted", "back"):
        put(
            tmp_path / "items" / f"{item}.parquet",
            columns.ITEMS,
            {"item": item, "title": "imported", "categories": ["c"], "attributes": '{"year": 1999}'},
        )

    def change(item: str, time: int, title: str | None) -> dict[str, Any]:
        return {"offset": time, "time": time, "item": item, "deleted": title is None, "title": title}

    log = tmp_path / "catalogue" / "log=x" / "partition=0"
    put(log / "0-1.parquet", columns.CATALOGUE, change("changed", 2, "second"), change("back", 5, "again"))
    put(log / "2-5.parquet", columns.CATALOGUE, change("changed", 1, "first"), change("deleted", 3, None))
    put(log / "6-7.parquet", columns.CATALOGUE, change("back", 4, None), change("new", 6, "live"))
    catalogue = read_catalogue(tmp_path)
    assert {name: item and item.title for name, item in catalogue.items()} == {
        "kept": "imported",
        "changed": "second",
        "deleted": None,
        "back": "again",
        "new": "live",
    }
    assert catalogue["kept"] == Item(id="kept", title="imported", categories=["c"], attributes={"year": 1999})


def test_profiles_are_the_tokens_that_serving_makes(tmp_path: Path) -> None:
    put(tmp_path / "users" / "users.parquet", columns.USERS, {"user": "u", "attributes": '{"sex":"F","age":41}'})
    write_profiles(tmp_path, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [{"user": "u", "profile": ["age=6.0", "sex=f"]}]


def test_item_features_by_hand() -> None:
    counts = pa.table(
        {
            "item": ["a", "b", "early"],
            "end_liked": [3, 0, 0],
            "end_recent": [1, 0, 0],
            "end_known": [6, 2, 0],
            "end_rated": [5, 2, 0],
            "end_rated_well": [4, 0, 0],
        }
    )
    # Of 7 rated interactions 4 were positive: the rate that 10 pseudo-counts pull towards.
    features = item_features(["a", "b", "early", "unknown"], counts, "end")
    np.testing.assert_allclose(features[0], [math.log(4), math.log(2), (4 + 10 * 4 / 7) / 15, 1])
    np.testing.assert_allclose(features[1], [0, 0, (10 * 4 / 7) / 12, 1])
    np.testing.assert_array_equal(features[2:], [UNKNOWN_ITEM, UNKNOWN_ITEM])


def test_items_are_those_described_or_used_and_not_gone(tmp_path: Path) -> None:
    catalogue = {"a": Item(id="a", title="Alien"), "deleted": None, "withheld": Item(id="withheld")}
    items = all_items(pa.table({"item": ["used", "a"]}), catalogue, {"deleted", "withheld"})
    assert items == ["a", "used"]
    write_items(items, catalogue, np.zeros((2, 4)), tmp_path)
    tokens = pq.read_table(tmp_path)["tokens"].to_pylist()
    assert tokens == [token_ids(["title=alien"], 24).tolist(), [0] * 24]


def test_an_item_taken_out_of_answers_stays_so(tmp_path: Path) -> None:
    change = {"offset": 0, "time": 1, "item": "out", "deleted": False, "title": "t", "available": False}
    put(tmp_path / "catalogue" / "log=x" / "partition=0" / "0-1.parquet", columns.CATALOGUE, change)
    item = read_catalogue(tmp_path)["out"]
    assert item is not None
    assert not item.available


def test_items_with_interactions_are_found_in_all_files(tmp_path: Path) -> None:
    assert interacted_items(tmp_path) == set()
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS, interaction(1), interaction(2))
    put(tmp_path / "interactions" / "b.parquet", columns.INTERACTIONS, {**interaction(3), "item": "ü"})
    assert interacted_items(tmp_path) == {"i", "ü"}
