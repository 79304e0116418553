"""Ids of items as bytes: positions by id, and ids by position."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput
from feature_store.item_ids import ItemIds

IDS = st.lists(st.text(max_size=12), unique=True, max_size=40)


@given(ids=IDS, more=IDS, asked=st.lists(st.text(max_size=12), max_size=20), cut=st.integers(0, 40))
def test_it_is_a_list_and_a_dictionary(ids: list[str], more: list[str], asked: list[str], cut: int) -> None:
    parts = [ids[:cut], ids[cut:]]
    found = ItemIds(pa.chunked_array([pa.array(part, pa.string()) for part in parts]))
    later = [name for name in more if name not in ids]
    found.append(later)
    everything = [*ids, *later]
    asked = [*asked, *everything, *asked]
    expected = {name: place for place, name in enumerate(everything)}
    assert found.positions(asked).tolist() == [expected.get(name, -1) for name in asked]
    places = list(reversed(range(len(everything))))
    assert found.names(places) == everything[::-1]
    assert len(found) == len(everything)
    for count in {0, len(ids), len(everything)}:
        assert found.strings(count) == everything[:count]


def test_a_part_of_a_column_and_what_is_no_text_of_bytes() -> None:
    found = ItemIds(pa.array(["x", "ü:\n", "", "a\0"], pa.string()).slice(1))
    assert found.strings(3) == ["ü:\n", "", "a\0"]
    assert found.positions(["a\0", "x", "", "ü:\n", "a", "\ud800"]).tolist() == [2, -1, 1, 0, -1, -1]


def test_many_are_told_apart() -> None:
    names = [f"item {k}" for k in range(70_000)]
    found = ItemIds.of(names)
    assert found.positions(names).tolist() == list(range(70_000))
    assert found.positions([f"{name}0" for name in names[7_000:]]).max() == -1


def test_an_id_that_comes_twice_is_named() -> None:
    with pytest.raises(InvalidInput, match="Item 'b' comes twice"):
        ItemIds.of(["a", "b", "c", "b"])
