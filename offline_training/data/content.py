"""What items and users are described with, as tokens, in Spark expressions: equal to what
feature_store.contracts.catalogue makes in serving, for all characters of Unicode 13 (what later versions call a letter,
Java 17 does not). Attributes are a map<string, variant> here.
"""

from collections.abc import Callable

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_store.contracts.catalogue import JSON_TEXT
from feature_store.definitions import TOKEN_BUCKETS

_WORD = r"[\p{L}\p{N}_]+"  # what Python's \w+ finds
_SMALLEST, _LARGEST = -1074, 1023  # exponents of two among doubles


def item_tokens(title: Column, categories: Column, attributes: Column) -> Column:
    """Item.tokens() in any order: array<string>. Nulls describe nothing."""
    words = F.regexp_extract_all(F.lower(F.coalesce(title, F.lit(""))), F.lit(_WORD), F.lit(0))
    return F.array_distinct(
        F.concat(
            F.transform(
                F.coalesce(categories, F.array().cast("array<string>")), lambda name: F.concat(F.lit("category="), name)
            ),
            F.transform(words, lambda word: F.concat(F.lit("title="), word)),
            _attribute_tokens(attributes),
        )
    )


def profile_tokens(attributes: Column) -> Column:
    """UserProfile.tokens(): array<string>. Null describes nothing."""
    return F.array_sort(_attribute_tokens(attributes))


def from_json(attributes: Column) -> Column:
    """Attributes of a JSON object's text."""
    return F.parse_json(attributes).cast("map<string, variant>")


def from_texts(attributes: Column) -> Column:
    """Attributes of a map<string, string>, as feature_store.contracts.catalogue.attribute_value has it."""
    return F.transform_values(attributes, _variant)


def token_ids(tokens: Column, length: int) -> Column:
    """feature_store.definitions.token_ids of distinct tokens: array<bigint> of the length."""
    ids = F.slice(F.array_sort(F.transform(tokens, lambda token: F.crc32(token) % TOKEN_BUCKETS + 1)), 1, length)
    return F.concat(ids, F.array_repeat(F.lit(0).cast("bigint"), length - F.size(ids)))


def _attribute_tokens(attributes: Column) -> Column:
    described = F.coalesce(F.map_entries(attributes), F.array().cast("array<struct<key: string, value: variant>>"))
    return _each(described, _value, _scaled, _token)


def _variant(_: Column, text: Column) -> Column:
    return F.when(text.rlike(rf"\A(?:{JSON_TEXT})\z"), F.try_parse_json(text)).otherwise(text.cast("variant"))


def _each(array: Column, *steps: Callable[[Column], Column]) -> Column:
    """The array after the steps, one by one: what a step uses twice has been computed once."""
    for step in steps:
        array = F.transform(array, step)
    return array


def _value(entry: Column) -> Column:
    value = entry["value"]
    is_number = ~F.schema_of_variant(value).isin("STRING", "BOOLEAN")
    number = F.when(is_number, F.try_variant_get(value, "$", "double"))
    # The logarithm may fall on the wrong side of a power of two: the quotient will tell.
    power = F.least(F.greatest(F.floor(F.log2(F.abs(number))), F.lit(_SMALLEST)), F.lit(_LARGEST))
    text = F.when(~is_number, F.lower(F.variant_get(value, "$", "string")))
    return F.struct(entry["key"].alias("name"), text.alias("text"), number.alias("number"), power.alias("power"))


def _scaled(entry: Column) -> Column:
    quotient = F.abs(entry["number"]) / F.pow(F.lit(2.0), entry["power"])
    return F.struct(entry["name"], entry["text"], entry["number"], entry["power"], quotient.alias("quotient"))


def _token(entry: Column) -> Column:
    number, power, quotient = entry["number"], entry["power"], entry["quotient"]
    sign = F.when(number < 0, "-").otherwise("")
    exponent = power + F.when(quotient < 1, 0).when(quotient < 2, 1).otherwise(2)
    half = F.floor(quotient * F.when(quotient < 1, 4).when(quotient < 2, 2).otherwise(1)) - 2
    looks_like_a_year = (F.abs(number) >= 1000) & (F.abs(number) < 3000) & (number == F.floor(number))
    bucket = (
        F.when(number.isNull(), entry["text"])
        .when(looks_like_a_year, (F.floor(number / 5) * 5).cast("string"))
        .when(number == 0, "0")
        .otherwise(F.concat(sign, exponent, F.lit("."), half))
    )
    return F.concat(entry["name"], F.lit("="), bucket)
