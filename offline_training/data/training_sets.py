"""The Spark job: from the lake to the training sets, point-in-time correct.

A user's interactions stand in the order in which they became known, so what was known at a moment are those strictly
before it; item features are computed as of the end of the training time and, for training the ranker without leakage,
as of the start of the validation time.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.dataset as ds
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_store.contracts.columns import INTERACTIONS
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import NEGATIVE, POSITIVE
from offline_training.data.catalogue import (
    as_merged,
    gone_items,
    item_names,
    lake_rows,
    newest_descriptions,
    user_profiles,
    without_erased,
)
from offline_training.data.erasures import erased_users, pending_erasures
from offline_training.data.impressions import HISTORY, SLATE, impressions_from_log
from offline_training.data.item_features import all_items, count_interactions, item_features
from offline_training.data.item_lists import SEQUENTIAL, item_lists
from offline_training.data.lake import no_interactions, parquet_files
from offline_training.data.merges import Accounts, merges
from offline_training.data.summary import TrainingSetSummary
from offline_training.progress import Progress
from offline_training.settings import TrainingSettings
from streaming.settings import RewardSettings

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1  # of the positives, the newest
USER_EVENTS = 5_000  # newest interactions per user
_MAX_RANK_ERROR = 1_000_000  # the validation start is exact for fewer positives, and within one in a million for more
_IMPORTED = "user string, item string, type string, value double, time bigint, written bigint"


def build_training_sets(
    spark: SparkSession,
    lake: Path,
    out: Path,
    *,
    training: TrainingSettings,
    rewards: RewardSettings,
    until_ms: int | None,
    exclude_items: frozenset[str] | None,
    progress: Progress,
) -> TrainingSetSummary:
    """Writes items, items_at_validation, users, item_lists, item_lists_at_validation, impressions and the summary below
    `out`, in place of what is there.

    Of the imported interactions those known before until_ms count; of the event log all do. What was imported about
    excluded items does not count, only what the log and the catalogue log say of them; items deleted from the catalogue
    appear nowhere, nor does what was known of a user until their erasure. What visitors did until they were merged with
    a user stands under the user, at the time at which it was known of the visitor, and no profile of theirs counts
    until then. Feedback is an interaction at the time it was
    received. Histories in the lake are known of their users, and nothing is learnt from them: they count nowhere, and
    are not positive. Raises InvalidInput if there is nothing to learn from.
    """
    if not parquet_files(lake / "interactions"):
        raise no_interactions(lake)
    shutil.rmtree(out, ignore_errors=True)
    progress(0.0, "reading the catalogue")
    withheld = item_names(spark, exclude_items or frozenset())
    catalogue = newest_descriptions(spark, lake, withheld).cache()
    gone = gone_items(catalogue, withheld).cache()
    erased, accounts = erased_users(pending_erasures(lake)), Accounts(merges(lake))

    def known(rows: DataFrame) -> DataFrame:
        return as_merged(without_erased(rows, erased), accounts)

    impressions = known(impressions_from_log(spark, lake, rewards)).cache()
    unknown = erased | {user: max(until, erased.get(user, 0)) for user, until in accounts.untils().items()}
    try:
        imported, logged = known(_imported(spark, lake, training, until_ms)), _logged(impressions)
        histories = known(_histories(spark, lake, training))
        shown = impressions.drop("events")
        if exclude_items or parquet_files(lake / "catalogue"):
            imported = imported.join(gone.union(withheld), "item", "left_anti")
            logged = logged.join(gone, "item", "left_anti")
            histories = histories.join(gone.union(withheld), "item", "left_anti")
            shown = _without(gone, shown)
        interactions = imported.unionByName(logged)

        progress(0.1, "reading interactions")
        span = _span(interactions, lake, until_ms)
        validation = _validation_time(interactions, span.positives, training)

        progress(0.3, "counting interactions")
        moments = {"end": span.last + 1, "validation": validation}
        counts = count_interactions(interactions, moments)
        items = all_items(catalogue, counts).cache()
        features = item_features(items, list(moments))
        _write(items.select("item", "tokens", *features["end"]), out / "items", "item")
        _write(items.select("item", *features["validation"]), out / "items_at_validation", "item")

        progress(0.6, "collecting users")
        _write(_users(interactions.unionByName(histories), user_profiles(spark, lake, unknown)), out / "users", "user")
        if training.list_length:
            progress(0.7, "making item lists")
            users = spark.read.parquet(str(out / "users"))
            for name, moment in (("item_lists", None), ("item_lists_at_validation", validation)):
                _write(item_lists(users, SEQUENTIAL, training.list_length, moment), out / name, "item")
        progress(0.8, "collecting impressions")
        _write(shown.where(F.size("items") > 0), out / "impressions", "time", "decision")
    finally:
        spark.catalog.clearCache()

    summary = TrainingSetSummary(
        users=ds.dataset(out / "users").count_rows(),
        items=ds.dataset(out / "items").count_rows(),
        interactions=span.interactions,
        positives=span.positives,
        impressions=ds.dataset(out / "impressions").count_rows(),
        first_time=span.first,
        last_time=span.last,
        validation_time=validation,
    )
    summary.save(out)
    logger.info("training sets at %s: %s", out, summary)
    progress(1.0, "training sets are written")
    return summary


class _Span(NamedTuple):
    interactions: int
    positives: int
    first: int
    last: int


def _span(interactions: DataFrame, lake: Path, until_ms: int | None) -> _Span:
    [found] = interactions.agg(F.count("*"), F.count_if("positive"), F.min("time"), F.max("time")).collect()
    if found[0] == 0:
        raise no_interactions(lake, until_ms)
    return _Span(*found)


def _imported(spark: SparkSession, lake: Path, training: TrainingSettings, until_ms: int | None) -> DataFrame:
    """user, item, kind, time (ms, when it became known), positive, imported: of what was imported."""
    imported = _known(spark.read.schema(_IMPORTED).parquet(str(lake / "interactions")), training)
    return imported if until_ms is None else imported.where(F.col("time") < until_ms)


def _histories(spark: SparkSession, lake: Path, training: TrainingSettings) -> DataFrame:
    """The same of what is known and not learnt from."""
    rows = lake_rows(spark, lake / "histories", INTERACTIONS)
    return _known(rows, training).withColumn("positive", F.lit(False))


def _known(rows: DataFrame, training: TrainingSettings) -> DataFrame:
    """Imported rows as interactions."""
    rows = rows.withColumn("time", F.greatest("time", "written"))  # of a null and a number, the number
    named = [F.when(F.col("type") == kind, F.col("value") >= least) for kind, least in training.positive_value.items()]
    positive = F.coalesce(*named, F.col("value") > 0)
    kind = F.concat("type", F.when(positive, POSITIVE).otherwise(NEGATIVE))
    return rows.select(
        "user", "item", kind.alias("kind"), "time", positive.alias("positive"), F.lit(True).alias("imported")
    )


def _logged(impressions: DataFrame) -> DataFrame:
    """The same of the event log's feedback."""
    log = impressions.select("user", F.inline("events"))
    return log.select("user", "item", "kind", "time", "positive", F.lit(False).alias("imported"))


def _validation_time(interactions: DataFrame, positives: int, training: TrainingSettings) -> int:
    """The time of the first of the newest positives that are kept for validation; those of the same time go with it."""
    if positives == 0:
        raise InvalidInput(
            "None of the interactions is positive. training.positive_value says from which value on they are: "
            f"{training.positive_value}, other types above 0."
        )
    rank = int(positives * (1 - VALIDATION_SHARE)) + 0.5
    times = interactions.where("positive")
    [(time, first)] = times.agg(F.percentile_approx("time", rank / positives, _MAX_RANK_ERROR), F.min("time")).collect()
    if time == first:  # nothing would be left for training
        [(time,)] = times.where(F.col("time") > first).agg(F.min("time")).collect()
    if time is None:
        raise InvalidInput(
            f"All {positives} positive interactions have the same time, {first} ms: there is no before and after to "
            "learn from. Import interactions with the times at which they happened."
        )
    return int(time)


def _users(interactions: DataFrame, profiles: DataFrame) -> DataFrame:
    """Everybody with an interaction or a profile: items, kinds, positives and times of the newest USER_EVENTS
    interactions in parallel, oldest first, an item again as often as it was met at another time. No more than so many
    of a user are held at once, nor leave a task."""
    event = F.struct("time", "item", "kind", "positive")
    newest = F.reverse(F.max_by(event, event, USER_EVENTS))
    found = interactions.groupBy("user").agg(newest.alias("events"))
    nothing = F.array().cast("array<struct<time: bigint, item: string, kind: string, positive: boolean>>")
    columns = {"item": "items", "kind": "kinds", "positive": "positives", "time": "times"}
    return (
        found.join(profiles, "user", "full")
        .withColumn("events", F.coalesce("events", nothing))
        # In order, equals are neighbours: array_distinct would compare each with all.
        .withColumn("events", F.filter("events", lambda event, at: ~event.eqNullSafe(F.get("events", at - 1))))
        .select(
            "user",
            F.coalesce("profile", F.array().cast("array<string>")).alias("profile"),
            F.coalesce("profile_time", F.lit(0)).alias("profile_time"),
            *(F.col("events")[name].alias(column) for name, column in columns.items()),
        )
    )


def _without(gone: DataFrame, impressions: DataFrame) -> DataFrame:
    """Impressions without the slots and the past of items that are gone."""
    named = impressions.select("decision", F.explode(F.array_union("items", "history")).alias("item"))
    theirs = named.join(gone, "item", "left_semi").groupBy("decision").agg(F.collect_set("item").alias("gone"))
    nothing = F.array().cast("array<string>")
    found = impressions.join(theirs, "decision", "left").withColumn("gone", F.coalesce("gone", nothing))

    def kept(items: str, parallel: Sequence[str]) -> Column:
        return F.filter(F.arrays_zip(*parallel), lambda of: ~F.array_contains("gone", of[items]))

    for parallel in (SLATE, HISTORY):
        found = found.withColumn("kept", kept(parallel[0], parallel))
        found = found.withColumns({name: F.col(f"kept.{name}") for name in parallel})
    return found.select(*impressions.columns)


def _write(rows: DataFrame, directory: Path, *order: str) -> None:
    """Sorted within files, so that the same lake gives the same bytes to train on."""
    rows.sortWithinPartitions(*order).write.mode("overwrite").parquet(str(directory))
