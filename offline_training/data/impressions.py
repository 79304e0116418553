"""Joins the log's decisions with their feedback, as the fold does online, in Spark.

Feedback counts for the decision it names, if it came within the reward window (strictly before its end), on an item of
the slate, with a declared type and a finite value; the same event id for the same decision counts once.
"""

from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from offline_training.data.lake import parquet_files
from streaming.settings import Aggregation, RewardSettings

_IMPRESSIONS = (
    "user string, decision string, time bigint, variant string, history array<string>, profile array<string>, "
    "items array<string>, rewards array<double>, probabilities array<double>, predicted array<double>, "
    "positives array<struct<item: string, time: bigint>>"
)
_VIEW = "view"


def read_impressions(spark: SparkSession, lake: Path, rewards: RewardSettings) -> DataFrame:
    """One row per decision of the log: user, decision, time, variant, history, profile; items (the slate), rewards,
    probabilities and predicted in parallel; positives (item and time at which its reward first reached
    `rewards.positive`).

    The reward of an item without feedback is `rewards.silence`. But in the decisions of a client that reports views,
    items that it reported nothing of were not seen: they are no impressions, and are left out.
    """
    events = lake / "events"
    if not parquet_files(events):
        return spark.range(0).select(F.from_json(F.lit("{}"), _IMPRESSIONS).alias("row")).select("row.*")
    log = spark.read.parquet(str(events))
    decisions = log.where("kind = 'decision'").select(
        "log",
        F.col("id").alias("decision"),
        *("user", "time", "variant", "history", "profile", "probabilities"),
        F.slice("items", 1, F.col("shown")).alias("items"),
        F.slice("predicted", 1, F.col("shown")).alias("predicted"),
    )
    window = int(rewards.window_seconds * 1000)
    joined = decisions.dropDuplicates(["log", "decision"]).join(_feedback(log, rewards), ["log", "decision"], "left")
    in_time = F.filter(
        F.coalesce("events", F.array()),
        lambda event: F.array_contains("items", event["item"]) & (event["received"] < F.col("time") + window),
    )
    return (
        joined.withColumn("events", F.array_sort(in_time))
        .withColumn("events", F.filter("events", _is_first_of_its_id))
        .withColumn("views", F.exists("events", lambda event: event["type"] == _VIEW))
        .withColumn("slots", _slots(rewards))
        .withColumn("slots", F.filter("slots", lambda slot: slot["reward"].isNotNull()))
        .select(
            *("user", "decision", "time", "variant", "history", "profile"),
            F.col("slots.item").alias("items"),
            F.col("slots.reward").alias("rewards"),
            F.col("slots.probability").alias("probabilities"),
            F.col("slots.predicted").alias("predicted"),
            _positives(rewards).alias("positives"),
        )
    )


def _feedback(log: DataFrame, rewards: RewardSettings) -> DataFrame:
    """The usable events of each decision, as structs that sort in log order."""
    worth = [F.when(F.col("type") == kind, F.col("value") * weight) for kind, weight in rewards.weights.items()]
    return (
        log.where("kind = 'feedback' and not isnan(value) and abs(value) < double('infinity')")
        .withColumn("worth", F.coalesce(*worth, F.lit(None).cast("double")))
        .where("worth is not null")
        .groupBy("log", "decision")
        .agg(F.collect_list(F.struct("offset", "position", "id", "item", "type", "worth", "received")).alias("events"))
    )


def _is_first_of_its_id(event: Column, index: Column) -> Column:
    return ~F.exists(F.slice("events", 1, index), lambda earlier: earlier["id"] == event["id"])


def _events_of(item: Column) -> Column:
    return F.filter("events", lambda event: event["item"] == item)


def _reward(rewards: RewardSettings, events: Column) -> Column:
    """streaming.bandit.rewards.reward of an array of events, null if it is empty."""
    worths = F.transform(events, lambda event: event["worth"])
    match rewards.aggregation:
        case Aggregation.SUM:
            combined = F.when(F.size(worths) > 0, F.aggregate(worths, F.lit(0.0), lambda total, worth: total + worth))
        case Aggregation.MAX:
            combined = F.array_max(worths)
        case Aggregation.LATEST:
            combined = F.try_element_at(worths, F.lit(-1))
    # least and greatest skip nulls, which would turn no events into an event.
    cut = F.least(F.greatest(combined, F.lit(rewards.minimum)), F.lit(rewards.maximum))
    return F.when(combined.isNotNull(), cut)


def _slots(rewards: RewardSettings) -> Column:
    silence = F.when(~F.col("views"), F.lit(rewards.silence))
    return F.transform(
        F.arrays_zip("items", "probabilities", "predicted"),
        lambda slot: F.struct(
            slot["items"].alias("item"),
            F.coalesce(_reward(rewards, _events_of(slot["items"])), silence).alias("reward"),
            slot["probabilities"].alias("probability"),
            slot["predicted"].alias("predicted"),
        ),
    )


def _positives(rewards: RewardSettings) -> Column:
    """Items whose reward reached `positive`, with the time of the event that made it so."""

    def reached(item: Column) -> Column:
        events = _events_of(item)
        so_far = F.transform(
            events,
            lambda event, index: F.struct(
                event["received"].alias("time"), _reward(rewards, F.slice(events, 1, index + 1)).alias("reward")
            ),
        )
        first = F.try_element_at(F.filter(so_far, lambda event: event["reward"] >= rewards.positive), F.lit(1))
        return F.struct(item.alias("item"), first["time"].alias("time"))

    return F.filter(F.transform("items", reached), lambda positive: positive["time"].isNotNull())
