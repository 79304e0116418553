"""Rows of the lake come back from a file as they were, whichever format it has."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from feature_store import lake_format
from feature_store.contracts.catalogue import Attribute, attribute_text, attribute_value
from feature_store.contracts.columns import CATALOGUE, EVENTS, INTERACTIONS, USERS

TEXTS = {
    "plain": "plain",
    "5 apples": "5 apples",
    "007": "007",
    "null": "null",
    "": "",
    "42": '"42"',  # else it would be a number
    "-1.5e3": '"-1.5e3"',
    "true": '"true"',
    '"quoted"\n': r'"\"quoted\"\n"',
}


@pytest.mark.parametrize(("value", "text"), [*TEXTS.items(), (42, "42"), (0.5, "0.5"), (True, "true"), (-7, "-7")])
def test_an_attribute_is_a_text_that_tells_what_it_was(value: Attribute, text: str) -> None:
    assert attribute_text(value) == text
    assert attribute_value(text) == value
    assert type(attribute_value(text)) is type(value)


@given(st.text() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_any_attribute_comes_back(value: Attribute) -> None:
    back = attribute_value(attribute_text(value))
    assert (back, type(back)) == (value, type(value))


def test_times_are_timestamps_and_attributes_a_map_in_the_file(tmp_path: Path) -> None:
    described = [
        {"user": "u", "attributes": '{"city":"Köln","age":42,"code":"42"}', "written": None, "imported": 1_000},
        {"user": "v", "attributes": "{}", "written": 5, "imported": 2**46},
    ]
    table = pa.Table.from_pylist(described, USERS)
    lake_format.write(table, tmp_path / "users.parquet")
    held = pq.read_table(tmp_path / "users.parquet")
    assert held["imported"].type == pa.timestamp("ms", "UTC")
    assert held["attributes"].to_pylist() == [[("city", "Köln"), ("age", "42"), ("code", '"42"')], []]
    assert lake_format.read(tmp_path / "users.parquet", USERS) == table
    assert not lake_format.is_old(tmp_path / "users.parquet")


@pytest.mark.parametrize("now", [True, False], ids=["format 2", "format 1"])
def test_parts_of_a_file_are_read_alike_from_both_formats(tmp_path: Path, now: bool) -> None:
    path = tmp_path / "0-3.parquet"
    rows: list[dict[str, Any]] = [
        {"offset": 0, "kind": "profile", "time": 7, "attributes": msgspec.json.encode({"a": 1, "b": "1"}).decode()},
        {"offset": 1, "kind": "decision", "time": 8, "history_times": [3, 4]},
        {"offset": 2, "kind": "feedback", "time": 5, "received": 9},
    ]
    table = pa.Table.from_pylist([{"position": 0, **row} for row in rows], EVENTS)
    pq.write_table(lake_format.stored(table) if now else table, path)
    assert lake_format.is_old(path) is not now
    assert lake_format.read(path, EVENTS) == table
    some = lake_format.read(path, EVENTS, ["time", "history_times", "received"])
    assert some == table.select(["time", "history_times", "received"])
    late = list(lake_format.batches(path, EVENTS, pa.compute.field("offset") >= 1, 1))
    assert max(map(len, late)) == 1
    assert pa.concat_tables(late) == table.slice(1)
    assert [lake_format.late_parts(path, since) for since in (0, 9, 10)] == [[0], [0], []]
    assert lake_format.read(path, EVENTS, since=10) == EVENTS.empty_table()


def test_columns_that_a_file_lacks_are_null(tmp_path: Path) -> None:
    row = {"user": "u", "item": "i", "type": "click", "value": 1.0, "time": 7}
    lake_format.write(pa.Table.from_pylist([row], INTERACTIONS.remove(5)), tmp_path / "x.parquet")
    assert lake_format.read(tmp_path / "x.parquet", INTERACTIONS).to_pylist() == [{**row, "written": None}]


def test_a_file_without_rows_says_so(tmp_path: Path) -> None:
    lake_format.write(CATALOGUE.empty_table(), tmp_path / "x.parquet")
    assert lake_format.read(tmp_path / "x.parquet", CATALOGUE) == CATALOGUE.empty_table()
    assert lake_format.read(tmp_path / "x.parquet", CATALOGUE, since=1) == CATALOGUE.empty_table()


def test_only_what_reaches_a_time_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0-6.parquet"
    rows = [{"offset": n, "position": 0, "kind": "tick", "time": n} for n in range(5)]
    rows.append({"offset": 5, "position": 0, "kind": "feedback", "time": 0, "received": 5})
    table = pa.Table.from_pylist(rows, EVENTS)
    pq.write_table(lake_format.stored(table), path, row_group_size=2)
    assert [lake_format.late_parts(path, since) for since in (0, 2, 4, 5, 6)] == [[0, 1, 2], [1, 2], [2], [2], []]
    feedback = pa.compute.field("kind") == "feedback"
    found = lake_format.read(path, EVENTS, ["offset"], feedback, since=2)
    assert found.to_pylist() == [{"offset": 5}]
