"""Filter expressions, item by item by hand, and against a plain evaluation of each item."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.catalogue import Item
from online_serving.attributes import Attributes
from online_serving.expressions import BrokenExpression, Columns, both, parse

ITEMS = [
    Item(id="shirt", categories=["shirts", "sale"], attributes={"price": 20, "brand": "Ä & O", "new": True}),
    Item(id="hat", categories=["hats"], attributes={"price": 9.5, "brand": "Bo", "new": False, "list price": 12}),
    Item(id="odd", attributes={"price": "on request", "category": "inner"}),
    Item(id="bare", categories=["sale"]),
]


def columns(items: list[Item]) -> Columns:
    categories: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        for category in item.categories:
            categories.setdefault(category, []).append(position)
    by_category = {name: np.array(positions) for name, positions in categories.items()}
    return Columns(Attributes().with_items(enumerate(items)), by_category, len(items))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("price < 20", {"hat"}),
        ("20 >= price", {"shirt", "hat"}),
        ("9.5 <= price < 20", {"hat"}),
        ("price == 20", {"shirt"}),
        ("price != 20", {"hat", "odd"}),
        ("not price == 20", {"hat", "odd", "bare"}),
        ('price == "on request"', {"odd"}),
        ("price > -1", {"shirt", "hat"}),
        ('price in [9.5, "on request", 7]', {"hat", "odd"}),
        ("price not in (9.5, 7)", {"shirt", "odd"}),
        (f"price in {list(range(100))}", {"shirt"}),
        ('brand == "Ä & O"', {"shirt"}),
        ('brand != "Ä & O"', {"hat"}),
        ('"Bo" == brand', {"hat"}),
        ("new", {"shirt"}),
        ("not new", {"hat", "odd", "bare"}),
        ("new == false", {"hat"}),
        ("new != true", {"hat"}),
        ("new in [1]", set()),  # a truth value is no number
        ("has(brand)", {"shirt", "hat"}),
        ('has(attributes["list price"]) and attributes["list price"] < 20', {"hat"}),
        ('category == "sale"', {"shirt", "bare"}),
        ('category != "sale"', {"hat", "odd"}),
        ('"hats" in categories', {"hat"}),
        ('category in ["hats", "shirts"] and price < 20', {"hat"}),
        ('category not in ["hats", "sale"]', {"odd"}),
        ('attributes["category"] == "inner"', {"odd"}),
        ('  price < 20 or (category == "sale" and not has(price)) ', {"hat", "bare"}),
        ("nothing_of_this_name > 0", set()),
        ('category == "of nothing"', set()),
    ],
)
def test_expressions(expression: str, expected: set[str]) -> None:
    found = parse(expression)(columns(ITEMS))
    assert {item.id for item, described in zip(ITEMS, found, strict=True) if described} == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "line 1, column 1: invalid syntax"),
        ("price <", "line 1, column 8: invalid syntax"),
        ("  price < brand", "line 1, column 11: expected a value"),
        ("price < 'x'", "line 1, column 9: <, <=, > and >= are for numbers"),
        ("price < true", "line 1, column 9: <, <=, > and >= are for numbers"),
        ("ä == 1 and 3", "line 1, column 12: expected a comparison"),
        ("1 < 2", "line 1, column 1: expected the name of an attribute"),
        ("price is 3", "line 1, column 10: expected ==, !="),
        ("price in 3", "line 1, column 10: expected a list of values"),
        ("category < 3", "line 1, column 1: expected ==, != or in"),
        ("category == 3", "line 1, column 13: categories are texts"),
        ("category", "line 1, column 1: expected ==, != or in"),
        ("price < 1e999", "line 1, column 9: the number is too large"),
        ("price < 1j", "line 1, column 9: expected a value"),
        ("attributes[price] < 1", "line 1, column 1: expected the name of an attribute"),
        ("item.price < 1", "line 1, column 1: expected the name of an attribute"),
        ("__import__('os').system('true')", "line 1, column 1: expected a comparison"),
        ("[x for x in price]", "line 1, column 1: expected a comparison"),
        ("(price < 1\nand 3)", "line 2, column 5: "),
        ("#\r\n1\r", "line 2, column 1: expected a comparison"),
        (" price < 1 and", "line 1, column 15: invalid syntax"),
        ("a < 1; b < 2", "line 1, column 6: invalid syntax"),
        ("(" * 300 + "a" + ")" * 300, "too many nested parentheses"),
        ("-" * 990 + "1 < price", "line 1, column 1: "),
        ("not " * 240 + "3", "line 1, column 961: expected a comparison"),
        ("price\0", "null bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(expression: str, message: str) -> None:
    with pytest.raises(BrokenExpression) as refused:
        parse(expression)
    assert message in str(refused.value)


WORDS = [
    "price",
    "category",
    "attributes",
    "has",
    "(",
    ")",
    "[",
    "]",
    "'",
    '"',
    ",",
    "<",
    "==",
    "in",
    "not",
    "and",
    "or",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from([*WORDS, "1", "-", " ", "\r", "\n", "#", "\\", "é", ":=", "lambda"]), st.text())
)


@given(TEXTS.map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        described = parse(text)(columns(ITEMS))
    except BrokenExpression:
        return
    assert described.shape == (4,)


@pytest.mark.parametrize(
    "nested", ["(price < 9 or " * 60 + "new" + ")" * 60, "not " * 249 + "new", "(" * 199 + "new" + ")" * 199]
)
def test_what_is_nested_as_deep_as_it_may_be_is_worked_out(nested: str) -> None:
    assert parse(nested)(columns(ITEMS)).shape == (4,)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, {"shirt", "hat", "odd", "bare"}),
        ("has(price)", None, {"shirt", "hat", "odd"}),
        (None, "has(price)", {"shirt", "hat", "odd"}),
        ("new or has(price) # a word", 'price == 20 or category == "sale"', {"shirt"}),
    ],
)
def test_two_expressions_hold_together(one: str | None, other: str | None, expected: set[str]) -> None:
    joined = both(one, other)
    found = [True] * 4 if joined is None else parse(joined)(columns(ITEMS))
    assert {item.id for item, described in zip(ITEMS, found, strict=True) if described} == expected


VALUES = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, -1.5]), st.sampled_from(["a", "b", "1"]))
ENTRIES = st.one_of(
    st.none(),
    st.builds(lambda attributes: Item(id="x", attributes=attributes), st.dictionaries(st.sampled_from("pq"), VALUES)),
)


def _is(value: Any, other: Any) -> bool:
    return isinstance(value, str) == isinstance(other, str) and value == other and _flag(value) == _flag(other)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), ENTRIES), max_size=4), max_size=5), VALUES, VALUES)
def test_columns_after_changes_are_those_of_the_newest_items(
    batches: list[list[tuple[int, Item | None]]], one: Any, other: Any
) -> None:
    attributes, newest = Attributes(), dict[int, Item | None]()
    for batch in batches:
        before, known = attributes, dict(newest)
        attributes = attributes.with_items(batch)
        newest |= dict(batch)
        assert before.has("p", 6).tolist() == [_of(known, n) is not None for n in range(6)]  # stays as it was
    size = 6
    held = [_of(newest, n) for n in range(size)]
    looked_at = Columns(attributes, {}, size)
    among = parse(f"p in {[one, other]!r}")(looked_at).tolist()
    assert among == [value is not None and (_is(value, one) or _is(value, other)) for value in held]
    others = parse(f"p not in {[one, other]!r}")(looked_at).tolist()
    assert others == [value is not None and not hit for value, hit in zip(held, among, strict=True)]
    less = parse("p < 1")(looked_at).tolist()
    assert less == [isinstance(value, int | float) and not _flag(value) and value < 1 for value in held]


def _of(items: dict[int, Item | None], position: int) -> Any:
    item = items.get(position)
    return item.attributes.get("p") if item else None
