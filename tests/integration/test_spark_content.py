"""Tokens made in Spark are those that serving makes."""

import string
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_store.contracts import columns
from feature_store.contracts.catalogue import Item, UserProfile
from feature_store.definitions import ITEM_TOKENS
from feature_store.definitions import token_ids as ids_of
from feature_store.lake_format import stored
from offline_training.data.catalogue import gone_items, item_names, newest_descriptions
from offline_training.data.content import from_json, from_texts, item_tokens, profile_tokens, token_ids
from offline_training.data.lake import read_catalogue

NASTY_NUMBERS = [
    *(0, -0.0, 1, -1, 4, 5, 7, 8, 999, 1000, 1999, 2999, 2999.5, 3000, -1999, -2001, 1994.0, 10**18, 10**30, -(10**40)),
    *(0.1, 0.75, 1e-320, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e300, 123456789.123456789),
    *(2.0**n for n in range(-1074, 1024, 61)),
    *(2.0**n * (1 - 2**-53) for n in range(-1000, 1024, 61)),
    *(2.0**n * (1 + 2**-52) for n in range(-1000, 1024, 61)),
]
NASTY_TEXTS = [
    *("", " ", "1999", "true", "ΟΔΥΣΣΕΥΣ ΑΣ", "İstanbul", "STRASSE straße", "e\u0301té", "日本語 映画", "x\x00y"),
    "a_b-c.d",
    *("007", "-0", "1e5", "1E+400", "1.", ".5", "5 apples", "42\n", "null", "NaN", "True"),
    *('"', '"quoted"', "[1]", '{"a": 1}'),
    *('quote " and \\ slash', "tab\tnew\nline", "½ ² Ⅷ 七", "👩‍👩‍👧 family", "\u200dzero\u200c", "Ǆ ǅ ﬃ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀"),
]
# Letters of all the world's scripts that Java 17 knows, without what is younger than Unicode 13.
LETTERS = st.characters(max_codepoint=0x86F, exclude_categories=["Cs", "Cn", "Co"])
TEXTS = st.sampled_from(NASTY_TEXTS) | st.text(LETTERS, max_size=20)
NUMBERS = st.sampled_from(NASTY_NUMBERS) | st.floats(allow_nan=False, allow_infinity=False)
NUMBERS |= st.integers(-(2**63), 2**63 - 1) | st.integers(-3100, 3100)
ATTRIBUTES = st.dictionaries(TEXTS | st.text(string.ascii_letters, min_size=1), TEXTS | NUMBERS | st.booleans())
ITEMS = st.lists(
    st.builds(Item, id=st.just("i"), title=TEXTS, categories=st.lists(TEXTS, max_size=4), attributes=ATTRIBUTES),
    min_size=100,
    max_size=100,
)


_SCHEMA = pa.schema([columns.ITEMS.field(name) for name in ("title", "categories", "attributes")])


def tokens_in_spark(spark: SparkSession, items: list[Item]) -> list[dict[str, Any]]:
    """From either format of the lake."""
    objects = [msgspec.json.encode(item.attributes).decode() for item in items]
    described = pa.table([[item.title for item in items], [item.categories for item in items], objects], schema=_SCHEMA)
    found = spark.createDataFrame(described).withColumn("attributes", from_json(F.col("attributes")))
    texts = spark.createDataFrame(stored(described)).withColumn("attributes", from_texts(F.col("attributes")))
    return [*_tokens(found), *_tokens(texts)]


def _tokens(found: DataFrame) -> list[dict[str, Any]]:
    tokens = item_tokens(found["title"], found["categories"], found["attributes"])
    rows: list[dict[str, Any]] = (
        found.select(
            tokens.alias("tokens"),
            token_ids(tokens, ITEM_TOKENS).alias("ids"),
            profile_tokens(found["attributes"]).alias("profile"),
        )
        .toArrow()
        .to_pylist()
    )
    return rows


def check(spark: SparkSession, items: list[Item]) -> None:
    for item, found in zip([*items, *items], tokens_in_spark(spark, items), strict=True):
        assert sorted(found["tokens"]) == item.tokens()
        assert found["ids"] == ids_of(item.tokens(), ITEM_TOKENS).tolist()
        assert found["profile"] == UserProfile(attributes=item.attributes).tokens()


def test_nasty_numbers_and_texts_become_the_same_tokens(spark: SparkSession) -> None:
    numbers = [Item(id="i", attributes={"n": number}) for number in NASTY_NUMBERS]
    texts = [Item(id="i", title=text, categories=[text, text], attributes={text: text}) for text in NASTY_TEXTS]
    check(spark, [*numbers, *texts, Item(id="i")])


@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@given(items=ITEMS)
def test_any_description_becomes_the_same_tokens(spark: SparkSession, items: list[Item]) -> None:
    check(spark, items)


def test_the_newest_word_on_an_item_counts_as_in_serving(spark: SparkSession, tmp_path: Path) -> None:
    def put(path: str, schema: pa.Schema, rows: list[dict[str, Any]], now: bool = True) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(stored(table) if now else table, tmp_path / path)

    def change(item: str, time: int, offset: int, title: str | None) -> dict[str, Any]:
        return {"offset": offset, "time": time, "item": item, "deleted": title is None, "title": title}

    imported = [
        {"item": item, "title": "imported", "categories": ["c"], "attributes": '{"year":1999}'}
        for item in ("kept", "changed", "deleted", "back", "withheld", "withheld and changed")
    ]
    put("items/items.parquet", columns.ITEMS, imported)
    log = "catalogue/log=x/partition=0"
    changes = [
        change("changed", 2, 1, "second"),
        change("back", 5, 2, "again"),
        change("withheld and changed", 7, 9, "w"),
    ]
    put(f"{log}/0-2.parquet", columns.CATALOGUE, changes)
    older = [change("changed", 2, 0, "first"), change("deleted", 3, 3, None)]
    put(f"{log}/2-5.parquet", columns.CATALOGUE, older, now=False)
    put(f"{log}/5-7.parquet", columns.CATALOGUE, [change("back", 4, 6, None), change("new", 6, 7, "live")])
    withheld = frozenset({"withheld", "withheld and changed", "unknown"})
    expected = {
        name: ids_of(item.tokens(), ITEM_TOKENS).tolist() if item else None
        for name, item in read_catalogue(tmp_path, withheld).items()
    }
    assert expected.keys() == {"kept", "changed", "deleted", "back", "new", "withheld and changed"}
    found = newest_descriptions(spark, tmp_path, item_names(spark, withheld))
    rows = found.collect()
    assert {row["item"]: None if row["deleted"] else row["tokens"] for row in rows} == expected
    gone = gone_items(found, item_names(spark, withheld)).collect()
    assert {row["item"] for row in gone} == {"deleted", "withheld", "unknown"}


def test_nothing_is_described_by_nulls(spark: SparkSession) -> None:
    found = spark.sql("select cast(null as string) as text, cast(null as array<string>) as texts")
    for attributes in (from_json(found["text"]), from_texts(F.lit(None).cast("map<string, string>"))):
        [row] = found.select(
            item_tokens(found["text"], found["texts"], attributes).alias("tokens"),
            profile_tokens(attributes).alias("profile"),
        ).collect()
        assert (row["tokens"], row["profile"]) == ([], [])


def test_more_tokens_than_the_tower_reads_are_cut(spark: SparkSession) -> None:
    item = Item(id="i", title=" ".join(f"word{n}" for n in range(100)))
    found, _ = tokens_in_spark(spark, [item])
    assert len(found["ids"]) == ITEM_TOKENS
    assert found["ids"] == ids_of(item.tokens(), ITEM_TOKENS).tolist()
    assert found["ids"] == pytest.approx(sorted(found["ids"]))
