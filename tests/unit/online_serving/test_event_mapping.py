"""Messages of other systems, read by hand-made mappings."""

from typing import Any

import pytest

from feature_store.contracts.errors import InvalidInput
from online_serving.event_mapping import EventMapping
from online_serving.schemas import UserEvent

SHOP = EventMapping.model_validate(
    {
        "user_id": "who.id", "item_id": "sku", "type": "what", "value": "price", "time": "at", "session_id": "visit",
        "types": {"bought": "purchase", "saw": "click"},
    }
)  # fmt: skip
BOUGHT: dict[str, Any] = {"who": {"id": 7}, "sku": "a", "what": "bought", "price": 2.5, "at": 1_700_000_000_000}


def test_paths_lead_to_what_we_want_to_know() -> None:
    (event,) = SHOP.events(BOUGHT, "shop/0/12")
    assert event == UserEvent(
        user_id="7", item_id="a", type="purchase", value=2.5, time=1_700_000_000_000, event_id="shop/0/12"
    )


def test_what_is_not_named_is_passed_over_and_a_star_stands_for_the_rest() -> None:
    assert SHOP.events({"what": "looked away"}, "x") == []
    assert SHOP.events({}, "x") == []
    assert SHOP.events(BOUGHT | {"what": ["bought"]}, "x") == []
    rest = SHOP.model_copy(update={"types": {"*": "click"}})
    assert [event.type for event in rest.events(BOUGHT, "x")] == ["click"]
    theirs = SHOP.model_copy(update={"types": {}})
    assert [event.type for event in theirs.events(BOUGHT, "x")] == ["bought"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"who": {}}, "user_id, from who.id: Input should be a valid string, and it is None."),
        ({"sku": None}, "item_id, from sku: Input should be a valid string, and it is None."),
        ({"sku": ""}, "item_id, from sku: String should have at least 1 character"),
        ({"price": "much"}, "value, from price: Input should be a valid number, and it is 'much'."),
        ({"at": "yesterday"}, "time, from at: Input should be a valid integer, and it is 'yesterday'."),
        ({"visit": True}, "session_id, from visit: Input should be a valid string, and it is True."),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as found:
        SHOP.events(BOUGHT | change, "x")
    assert words in str(found.value)


@pytest.mark.parametrize("message", [[], "bought", 7, None])
def test_a_message_is_an_object(message: Any) -> None:
    with pytest.raises(InvalidInput, match="is to be a JSON object"):
        SHOP.events(message, "x")


def test_an_order_is_an_event_for_each_of_its_products_and_the_first_path_that_leads_somewhere_counts() -> None:
    shop = EventMapping.model_validate(
        {"user_id": ["userId", "visitor"], "item_id": ["products[].id", "product"], "event_id": "id", "time": "at"}
    )
    order = {"type": "purchase", "visitor": "v-1", "id": "m-1", "at": "2026-01-01T00:00:01.500Z"}
    first, second = shop.events(order | {"products": [{"id": "a"}, {}, {"id": 9}]}, "x")
    assert (first.user_id, first.item_id, first.event_id, first.time) == ("v-1", "a", "m-1/0", 1_767_225_601_500)
    assert (second.item_id, second.event_id) == ("9", "m-1/1")
    (viewed,) = shop.events({"type": "click", "userId": "u", "visitor": "v", "id": "m-2", "product": "b"}, "x")
    assert (viewed.user_id, viewed.item_id, viewed.event_id, viewed.value) == ("u", "b", "m-2", 1.0)


def test_other_paths_go_through_the_same_list() -> None:
    mapping = EventMapping(
        user_id=("u",), item_id=("lines[].id",), value=("lines[].quantity",), types={"*": "purchase"}
    )
    found = mapping.events({"u": "1", "lines": [{"id": "a", "quantity": 2}, {"id": "b"}]}, "t/0/1")
    assert [(event.item_id, event.value, event.event_id) for event in found] == [
        ("a", 2, "t/0/1/0"),
        ("b", 1, "t/0/1/1"),
    ]
