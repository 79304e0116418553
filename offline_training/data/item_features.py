"""Item features: counted by Spark over all interactions, finished on the driver, which holds the catalogue."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_store.contracts.catalogue import Item
from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, RECENT_POPULARITY, UNKNOWN_ITEM, token_ids

Float64 = NDArray[np.float64]

RATE_PSEUDO_COUNTS = 10.0
_COUNTS = ("liked", "recent", "known", "rated", "rated_well")


def count_interactions(interactions: DataFrame, moments: dict[str, int]) -> pa.Table:
    """Counts per item, as of each named moment (ms): what happened strictly before it.

    interactions: user, item, time, positive, imported. Returns item and for each moment MOMENT_liked (users with a
    positive), MOMENT_recent (the same within the declared window), MOMENT_known (interactions), MOMENT_rated (imported
    ones) and MOMENT_rated_well (positive ones of these).
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
    return interactions.groupBy("item", "user").agg(*by_user).groupBy("item").agg(*by_item).toArrow()


def write_items(items: list[str], catalogue: dict[str, Item | None], features: Float64, directory: Path) -> None:
    """Writes item, tokens (ITEM_TOKENS each, zeros for an item without a description) and the features."""
    described = (catalogue.get(item) for item in items)
    tokens = [token_ids(item.tokens() if item else [], ITEM_TOKENS).tolist() for item in described]
    _write(items, {"tokens": pa.array(tokens, pa.list_(pa.int64()))}, features, directory)


def write_features(items: list[str], features: Float64, directory: Path) -> None:
    """Writes item and the features."""
    _write(items, {}, features, directory)


def item_features(items: list[str], counts: pa.Table, moment: str) -> Float64:
    """definitions.ITEM_FEATURES as of the moment, (len(items), len(ITEM_FEATURES)).

    Items that had no interaction by then get the features' defaults, like items that a release does not know.
    """
    rows = pc.fill_null(pc.index_in(pa.array(items, pa.string()), counts["item"].combine_chunks()), -1).to_numpy()
    found = np.stack([counts[f"{moment}_{count}"].to_numpy() for count in _COUNTS]).astype(np.float64)
    liked, recent, known, rated, rated_well = np.where(rows >= 0, found[:, rows], 0.0) if len(counts) else found
    rate = found[4].sum() / max(found[3].sum(), 1.0)
    computed = {
        "popularity": np.log1p(liked),
        "recent_popularity": np.log1p(recent),
        "positive_rate": (rated_well + RATE_PSEUDO_COUNTS * rate) / (rated + RATE_PSEUDO_COUNTS),
        "known": np.ones(len(items)),
    }
    columns = np.stack([computed[feature.name] for feature in ITEM_FEATURES], axis=1)
    return np.where(known[:, None] > 0, columns, UNKNOWN_ITEM.astype(np.float64))


def all_items(counts: pa.Table, catalogue: dict[str, Item | None], gone: Iterable[str]) -> list[str]:
    """Every item that is described or has interactions, sorted, without those that are gone."""
    described = {item for item, description in catalogue.items() if description is not None}
    return sorted((described | set(counts["item"].to_pylist())) - set(gone))


def _write(items: list[str], columns: dict[str, pa.Array], features: Float64, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    table = {"item": pa.array(items, pa.string())} | columns
    table |= {feature.name: pa.array(features[:, i], pa.float32()) for i, feature in enumerate(ITEM_FEATURES)}
    pq.write_table(pa.table(table), directory / "part-0.parquet")
