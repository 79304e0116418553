"""Item features, counted over all interactions as of a moment."""

from collections.abc import Callable, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, RECENT_POPULARITY

RATE_PSEUDO_COUNTS = 10.0  # of the overall rate, in an item's
_COUNTS = ("liked", "recent", "known", "rated", "rated_well")


def count_interactions(interactions: DataFrame, moments: dict[str, int]) -> DataFrame:
    """Counts per item, as of each named moment (ms): what happened strictly before it.

    interactions: user, item, time, positive, imported. Returns item and for each moment MOMENT_liked (users with a
    positive), MOMENT_recent (the same within the declared window), MOMENT_known (interactions), MOMENT_rated (imported
    ones) and MOMENT_rated_well (positive ones of these). An item's rows are counted by user first, so that the item
    that everybody knows is not one task.
    """
    time, positive, imported = F.col("time"), F.col("positive"), F.col("imported")
    by_user = []
    for name, moment in moments.items():
        known = time < moment
        by_user += [
            F.max((known & positive).cast("int")).alias(f"{name}_liked"),
            F.max((known & positive & (time >= RECENT_POPULARITY.begins(moment))).cast("int")).alias(f"{name}_recent"),
            F.count_if(known).alias(f"{name}_known"),
            # The log tells of positives only: counted here, they would drive the rate of any shown item to 1.
            F.count_if(known & imported).alias(f"{name}_rated"),
            F.count_if(known & imported & positive).alias(f"{name}_rated_well"),
        ]
    by_item = [F.sum(column).alias(column) for column in (f"{name}_{count}" for name in moments for count in _COUNTS)]
    return interactions.groupBy("item", "user").agg(*by_user).groupBy("item").agg(*by_item)


def all_items(catalogue: DataFrame, counts: DataFrame) -> DataFrame:
    """Every item that is described and not deleted, or has interactions: item, tokens (zeros without a description) and
    the counts (zeros without interactions)."""
    nothing = F.array_repeat(F.lit(0).cast("bigint"), ITEM_TOKENS)
    items = catalogue.where("not deleted").join(counts, "item", "full").fillna(0)
    return items.withColumn("tokens", F.coalesce("tokens", nothing)).drop("deleted")


def item_features(items: DataFrame, moments: Sequence[str]) -> dict[str, list[Column]]:
    """definitions.ITEM_FEATURES as of each moment, of items with counts.

    Items that had no interaction by then get the features' defaults, like items that a release does not know.
    """
    [totals] = items.agg(*(F.sum(f"{name}_{count}") for name in moments for count in ("rated", "rated_well"))).collect()
    rates = {name: totals[2 * at + 1] / max(totals[2 * at], 1) for at, name in enumerate(moments)}
    return {name: _features(name, rate) for name, rate in rates.items()}


def _features(moment: str, rate: float) -> list[Column]:
    liked, recent, known, rated, rated_well = (F.col(f"{moment}_{count}") for count in _COUNTS)
    computed = feature_values(liked, recent, rated, rated_well, rate, F.log1p)
    return [
        F.when(known > 0, value).otherwise(feature.default).cast("float").alias(feature.name)
        for feature, value in zip(ITEM_FEATURES, computed, strict=True)
    ]


def feature_values(
    liked: Any, recent: Any, rated: Any, rated_well: Any, rate: float, log1p: Callable[[Any], Any]
) -> list[Any]:
    """The value of each of definitions.ITEM_FEATURES for known items, from their counts: Spark columns or arrays.

    rate: of positive ones among all that were rated. log1p: of the same kind as the counts.
    """
    values = {
        "popularity": log1p(liked),
        "recent_popularity": log1p(recent),
        "positive_rate": (rated_well + RATE_PSEUDO_COUNTS * rate) / (rated + RATE_PSEUDO_COUNTS),
        "known": 1.0,
    }
    return [values[feature.name] for feature in ITEM_FEATURES]
