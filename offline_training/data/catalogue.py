"""What the lake says about items and users, in Spark: the newest word on each, with their content as tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_store.contracts import columns
from feature_store.definitions import ITEM_TOKENS
from feature_store.lake_format import ATTRIBUTES, is_old, stored_schema
from offline_training.data.content import from_json, from_texts, item_tokens, profile_tokens, token_ids
from offline_training.data.lake import parquet_files
from offline_training.data.merges import Accounts

_CONTENT = ("item", "title", "categories", "attributes")
_CHANGE = (*_CONTENT, "time", "offset", "deleted")


def newest_descriptions(spark: SparkSession, lake: Path, withheld: DataFrame) -> DataFrame:
    """All items ever described, each once: item, tokens (ITEM_TOKENS each), deleted.

    A change in the catalogue log counts more than an import, a later change more than an earlier one. What was imported
    about the withheld items (item) is passed over.
    """
    imported = lake_rows(spark, lake / "items", columns.ITEMS).join(withheld, "item", "left_anti")
    before = [F.lit(-1).alias("time"), F.lit(-1).alias("offset"), F.lit(False).alias("deleted")]
    changes = lake_rows(spark, lake / "catalogue", columns.CATALOGUE)
    rows = imported.select(*_CONTENT, *before).union(changes.select(*_CHANGE))
    content = F.struct("title", "categories", "attributes", "deleted")
    newest = rows.groupBy("item").agg(F.max_by(content, F.struct("time", "offset")).alias("newest"))
    tokens = item_tokens(F.col("newest.title"), F.col("newest.categories"), F.col("newest.attributes"))
    return newest.select("item", token_ids(tokens, ITEM_TOKENS).alias("tokens"), "newest.deleted")


def gone_items(catalogue: DataFrame, withheld: DataFrame) -> DataFrame:
    """Items (item) that may appear nowhere: the deleted ones, and the withheld ones that no change describes."""
    return catalogue.where("deleted").select("item").union(withheld.join(catalogue, "item", "left_anti"))


def item_names(spark: SparkSession, items: frozenset[str]) -> DataFrame:
    """The items (item)."""
    return spark.createDataFrame(pa.table({"item": pa.array(sorted(items), pa.string())}))


def user_profiles(spark: SparkSession, lake: Path, erased: Mapping[str, int]) -> DataFrame:
    """user, profile (tokens) and profile_time (ms, when it became known) of each described user: the newest one,
    imported or put over HTTP.

    erased: as without_erased. Who was erased is described by an import only if it says that it was written later.
    """
    written = F.coalesce("written", F.lit(0))
    imported = lake_rows(spark, lake / "users", columns.USERS).select(
        "user", "attributes", F.coalesce("written", "imported", F.lit(0)).alias("known"), written.alias("time")
    )
    put = lake_rows(spark, lake / "events", columns.EVENTS).where("kind = 'profile'")
    profiles = without_erased(imported.union(put.select("user", "attributes", "time", "time")), erased)
    newest = profiles.groupBy("user").agg(
        F.max_by("attributes", "known").alias("attributes"), F.max("known").alias("profile_time")
    )
    return newest.select("user", profile_tokens(F.col("attributes")).alias("profile"), "profile_time")


def without_erased(rows: DataFrame, erased: Mapping[str, int]) -> DataFrame:
    """The rows without those of erased users (by key) up to their time (ms)."""
    if not erased:
        return rows
    table = pa.table({"user": list(erased), "until": pa.array(erased.values(), pa.int64())})
    until = F.broadcast(rows.sparkSession.createDataFrame(table))
    return rows.join(until, "user", "left").where("until is null or time > until").drop("until")


def as_merged(rows: DataFrame, accounts: Accounts) -> DataFrame:
    """The rows (user, time, ...) under the users who their users turned out to be."""
    visitors = accounts.visitors()
    if not visitors:
        return rows
    untils, merged = zip(*visitors.values(), strict=True)
    table = pa.table({"user": list(visitors), "untils": list(untils), "accounts": list(merged)})
    known = F.broadcast(rows.sparkSession.createDataFrame(table))
    later = F.filter(F.arrays_zip("untils", "accounts"), lambda one: one["untils"] >= F.col("time"))
    account = F.get(later, 0)["accounts"]
    return rows.join(known, "user", "left").withColumn("user", F.coalesce(account, "user")).select(*rows.columns)


def lake_rows(spark: SparkSession, directory: Path, schema: pa.Schema) -> DataFrame:
    """The rows of a data set of the lake, none if it is not there: times in ms since the epoch, attributes as content
    has them."""
    files = parquet_files(directory)
    everything = [directory] if files else []  # thousands of names are another job to Spark
    if ATTRIBUTES not in schema.names:
        return _read(spark, everything, schema)
    texts = schema.set(schema.get_field_index(ATTRIBUTES), stored_schema(schema).field(ATTRIBUTES))
    old = set(filter(is_old, files))
    before = _read(spark, everything if len(old) == len(files) else sorted(old), schema)
    now = _read(spark, [file for file in files if file not in old] if old else everything, texts)
    return now.withColumn(ATTRIBUTES, from_texts(F.col(ATTRIBUTES))).union(
        before.withColumn(ATTRIBUTES, from_json(F.col(ATTRIBUTES)))
    )


def _read(spark: SparkSession, paths: Sequence[Path], schema: pa.Schema) -> DataFrame:
    nothing = spark.createDataFrame(schema.empty_table())
    rows = spark.read.schema(nothing.schema).parquet(*map(str, paths)) if paths else nothing
    return rows.select(*schema.names)  # Spark adds what folders are named by
