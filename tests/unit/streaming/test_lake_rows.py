"""Records of the catalogue as rows of the lake, and back."""

import pytest

from feature_store.contracts.catalogue import Item
from streaming import catalogue_log
from streaming.kafka import Record
from streaming.lake_rows import CATALOGUE_TOPIC, change_of

ITEM = Item(
    id="i", title="T", categories=["c"], attributes={"year": 1999}, available=False, available_from=5, available_until=9
)


@pytest.mark.parametrize("item", [ITEM, Item(id="i")])
def test_an_item_comes_back_as_it_was(item: Item) -> None:
    record = Record(0, 3, key=b"i", timestamp=0, value=catalogue_log.encode_item(item, 7))
    (row,) = CATALOGUE_TOPIC.rows(record)
    assert set(row) == set(CATALOGUE_TOPIC.schema.names)
    assert change_of(row) == ("i", item)
