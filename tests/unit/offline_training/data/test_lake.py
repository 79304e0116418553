"""The split time, and the catalogue's newest words."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts import columns
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from offline_training.data.lake import (
    catalogue_items,
    imported_rows,
    interacted_items,
    read_catalogue,
    time_at_share,
)


def put(path: Path, schema: pa.Schema, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def interaction(time: int) -> dict[str, Any]:
    return {"user": "u", "item": "i", "type": "click", "value": 1.0, "time": time}


def test_the_split_is_a_share_of_the_time_span_not_of_the_rows(tmp_path: Path) -> None:
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS, *(interaction(t) for t in (100, 101, 102)))
    put(tmp_path / "interactions" / "b.parquet", columns.INTERACTIONS, interaction(200))
    assert time_at_share(tmp_path) == 180
    assert imported_rows(tmp_path) == 4
    assert time_at_share(tmp_path, share=0.5) == 150


def test_an_empty_lake_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no interactions\. Import some with `matchloop import DIR`"):
        time_at_share(tmp_path)
    assert imported_rows(tmp_path) == 0
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS)
    with pytest.raises(InvalidInput, match="holds no interactions"):
        time_at_share(tmp_path)


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
    put(log / "1-5.parquet", columns.CATALOGUE, change("changed", 1, "first"), change("deleted", 3, None))
    put(log / "5-7.parquet", columns.CATALOGUE, change("back", 4, None), change("new", 6, "live"))
    catalogue = read_catalogue(tmp_path)
    assert {name: item and item.title for name, item in catalogue.items()} == {
        "kept": "imported",
        "changed": "second",
        "deleted": None,
        "back": "again",
        "new": "live",
    }
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS, interaction(1))
    assert catalogue_items(tmp_path) == {"kept", "changed", "back", "new", "i"}
    assert catalogue["kept"] == Item(id="kept", title="imported", categories=["c"], attributes={"year": 1999})


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
