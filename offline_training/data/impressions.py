"""Joins the log's decisions with their feedback, as the fold does online, in Spark.

Feedback counts for the decision it names, if it came from its user within the reward window (strictly before its
end), on an item of the slate, with a declared type and a value within bounds; the same event id for the same decision
counts once. An answer whose id says that the log had not taken its decision shows no items as far as the log knows:
feedback on it, on any item, is among the events and no impression.
"""

from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from feature_store.contracts.catalogue import MAX_ID_CHARACTERS
from feature_store.contracts.events import MAX_VALUE
from feature_store.contracts.identity import ID_CHARACTERS, MASKED, NO_TIME, UNLOGGED
from feature_store.definitions import NEGATIVE, POSITIVE
from offline_training.data.lake import parquet_files
from streaming.settings import VIEW, Aggregation, RewardSettings

# Of contracts.columns.EVENTS what is read here, and the directory's log.
_EVENTS = (
    "log string, offset bigint, position int, kind string, time bigint, id string, user string, variant string, "
    "history array<string>, history_kinds array<string>, history_times array<bigint>, profile array<string>, "
    "items array<string>, shown int, predicted array<double>, probabilities array<double>, pinned array<string>, "
    "decision string, item string, type string, value double, received bigint"
)
_IMPRESSIONS = (
    "user string, decision string, time bigint, variant string, history array<string>, history_kinds array<string>, "
    "history_times array<bigint>, profile array<string>, items array<string>, places array<int>, "
    "rewards array<double>, clicked array<boolean>, probabilities array<double>, predicted array<double>, "
    "events array<struct<item: string, kind: string, positive: boolean, time: bigint>>"
)
SLATE = ("items", "places", "rewards", "clicked", "probabilities", "predicted")
HISTORY = ("history", "history_kinds", "history_times")
_HISTORY_TYPES = ("string", "string", "bigint")
_DECISION = ("log", "decision")
_SO_FAR = (Window.unboundedPreceding, Window.currentRow)


def impressions_from_log(spark: SparkSession, lake: Path, rewards: RewardSettings) -> DataFrame:
    """One row per decision of the log: user, decision, time, variant, profile; history, history_kinds and history_times
    in parallel, newest first; items (the slate), places (in it, from 0), rewards, clicked (whether there was any
    feedback that counts but a view), probabilities and predicted in parallel; events: item, kind, positive and time
    (ms, when it was received) of all feedback that counts but views.

    The reward of an item without feedback is `rewards.silence`. But in the decisions of a client that reports views,
    items that it reported nothing of were not seen: they are no impressions, and are left out. So are decisions that
    were withdrawn: nobody saw them; and those of nobody any more (identity.MASKED). An answer that is not in the log
    has events and no items; so has an event that belongs to none.
    """
    events = lake / "events"
    if not parquet_files(events):
        return spark.range(0).select(F.from_json(F.lit("{}"), _IMPRESSIONS).alias("row")).select("row.*")
    log = spark.read.schema(_EVENTS).parquet(str(events)).where(~F.col("user").startswith(MASKED))
    return (
        _outcomes(_counted(_rows(log, rewards), rewards), rewards)
        .withColumn("slots", _slots(rewards))
        .withColumn("slots", F.filter("slots", lambda slot: slot["reward"].isNotNull()))
        .select(
            *("made.user", "decision", "made.time", "made.variant", "made.profile"),
            *(f"made.{name}" for name in HISTORY),
            F.col("slots.item").alias("items"),
            F.col("slots.place").alias("places"),
            F.col("slots.reward").alias("rewards"),
            F.col("slots.clicked").alias("clicked"),
            F.col("slots.probability").alias("probabilities"),
            F.col("slots.predicted").alias("predicted"),
            "events",
        )
    )


def _rows(log: DataFrame, rewards: RewardSettings) -> DataFrame:
    """Decisions and usable feedback under the id of the decision: `made` is the decision, null in feedback."""
    made = F.struct(
        *("user", "time", "variant", *HISTORY, "profile", "probabilities"),
        F.slice("items", 1, F.col("shown")).alias("items"),
        F.slice("predicted", 1, F.col("shown")).alias("predicted"),
        F.coalesce("pinned", F.array().cast("array<string>")).alias("pinned"),
    )
    decides, tells = F.col("kind") == "decision", F.col("kind") == "feedback"
    bounded = F.abs("value") <= MAX_VALUE  # NaN is the largest of all to Spark
    worth = [F.when(F.col("type") == kind, _worth(kind, rewards)) for kind in rewards.weights]
    return log.select(
        *("log", "offset", "position", "user", "item", "type", "received"),
        F.when(decides, F.col("id")).otherwise(F.col("decision")).alias("decision"),
        F.when(decides, made).alias("made"),
        F.when(tells, F.col("id")).alias("id"),
        F.when(tells & bounded, F.coalesce(*worth, F.lit(None))).cast("double").alias("worth"),
        (F.col("type") == VIEW).alias("view"),
        (F.col("kind") == "withdrawal").alias("withdrawn"),
    ).where("made is not null or worth is not null or withdrawn")


def _named() -> tuple[Column, Column, Column]:
    """What a decision id says, as contracts.identity.read_decision_id has it: user, time (null, if there was none at
    all), and whether the log has not taken the decision."""
    raw = F.unbase64(F.translate("decision", "-_", "+/"))
    user = F.translate(F.rtrim(F.base64(F.substring(raw, 1, 16)), F.lit("=")), "+/", "-_")
    time = F.conv(F.hex(F.substring(raw, 17, 6)), 16, 10).cast("bigint")
    is_one = F.length("decision") == ID_CHARACTERS
    return user, F.nullif(time.bitwiseAND(~UNLOGGED), F.lit(NO_TIME)), is_one & (time >= UNLOGGED)


def _nothing_shown(received: Column) -> Column:
    """The decision behind an answer that the log does not have, or behind events that belong to none."""
    user, time, _ = _named()
    return F.struct(
        user.alias("user"),
        F.coalesce(time, received).alias("time"),
        F.lit(None).cast("string").alias("variant"),
        *(F.array().cast(f"array<{kind}>").alias(name) for name, kind in zip(HISTORY, _HISTORY_TYPES, strict=True)),
        F.array().cast("array<string>").alias("profile"),
        F.array().cast("array<double>").alias("probabilities"),
        F.array().cast("array<string>").alias("items"),
        F.array().cast("array<double>").alias("predicted"),
        F.array().cast("array<string>").alias("pinned"),
    )


def _worth(kind: str, rewards: RewardSettings) -> Column:
    weight, threshold = rewards.weights[kind], rewards.thresholds.get(kind)
    if threshold is None:
        return F.col("value") * weight
    return F.when(F.col("value") >= threshold, F.lit(weight)).otherwise(F.lit(0.0))


def _counted(rows: DataFrame, rewards: RewardSettings) -> DataFrame:
    """The decisions and the feedback that counts, each once, with their place among the rows of the decision."""
    in_order = (
        Window.partitionBy(*_DECISION).orderBy(F.col("made").isNull(), "offset", "position").rowsBetween(*_SO_FAR)
    )
    same_id = Window.partitionBy(*_DECISION, "id").orderBy("place")
    in_time = F.col("received") < F.col("time") + int(rewards.window_seconds * 1000)
    user, time, unlogged = _named()
    plausible = unlogged & F.length("item").between(1, MAX_ID_CHARACTERS)
    usable = (plausible | F.array_contains("items", F.col("item"))) & F.col("theirs") & in_time
    return (
        rows.withColumns(
            {
                "place": F.row_number().over(in_order),
                # The decision is first, so every event sees what it is about without a second reading of the log.
                "items": F.first(F.concat("made.items", "made.pinned")).over(in_order),
                "theirs": F.col("user") == F.coalesce(F.first("made.user").over(in_order), user),
                "time": F.coalesce(F.first("made.time").over(in_order), time, "received"),
                "withdrawn": F.bool_or("withdrawn").over(Window.partitionBy(*_DECISION)),
            }
        )
        .where("not withdrawn")
        .where((F.col("place") == 1) & F.col("made").isNotNull() | usable)
        .drop("items", "time", "withdrawn", "theirs", "user")
        .withColumn("of_its_id", F.row_number().over(same_id))
        .where("of_its_id = 1")
    )


def _outcomes(counted: DataFrame, rewards: RewardSettings) -> DataFrame:
    """log, decision, made; outcomes, a map from the items with feedback to their reward; events, as
    impressions_from_log has them; views, whether the client reports them."""
    item = Window.partitionBy(*_DECISION, "item").orderBy("place").rowsBetween(*_SO_FAR)
    counts = ~F.col("view") | ~F.bool_or(~F.col("view")).over(item)  # a view does while nothing else has come
    alike = Window.partitionBy(*_DECISION, "item", "view").orderBy("place").rowsBetween(*_SO_FAR)
    adds = rewards.aggregation is Aggregation.SUM
    so_far = F.sum("worth").over(alike) if adds else F.col("worth")
    final = F.coalesce(_final(rewards, ~F.col("view")), _final(rewards, F.col("view")))
    # As streaming.bandit.rewards.is_positive has it.
    reached = F.when(F.col("worth") > 0, F.col("so_far")).otherwise(F.col("worth")) if adds else F.col("worth")
    positive = _cut(reached, rewards) >= rewards.positive
    kind = F.concat("type", F.when(positive, POSITIVE).otherwise(NEGATIVE))
    event = F.struct("item", kind.alias("kind"), positive.alias("positive"), F.col("received").alias("time"))
    by_item = (
        counted.withColumn("so_far", F.when(counts, so_far))
        .groupBy(*_DECISION, "item")
        .agg(
            F.first("made", ignorenulls=True).alias("made"),
            F.min("received").alias("received"),
            _cut(final, rewards).alias("reward"),
            F.collect_list(F.when(F.col("item").isNotNull() & ~F.col("view"), event)).alias("events"),
            F.bool_or("view").alias("view"),
        )
    )
    outcome = F.when(F.col("item").isNotNull(), F.struct("item", "reward"))
    return by_item.groupBy(*_DECISION).agg(
        F.coalesce(F.first("made", ignorenulls=True), _nothing_shown(F.min("received"))).alias("made"),
        F.map_from_entries(F.collect_list(outcome)).alias("outcomes"),
        F.flatten(F.collect_list("events")).alias("events"),
        F.coalesce(F.bool_or("view"), F.lit(False)).alias("views"),
    )


def _final(rewards: RewardSettings, kind: Column) -> Column:
    """What the events of a kind come to."""
    so_far = F.when(kind, F.col("so_far"))
    if rewards.aggregation is Aggregation.MAX:
        return F.max(so_far)
    return F.max_by(so_far, F.when(so_far.isNotNull(), F.col("place")))


def _cut(reward: Column, rewards: RewardSettings) -> Column:
    return F.least(F.greatest(reward, F.lit(rewards.minimum)), F.lit(rewards.maximum))


def _slots(rewards: RewardSettings) -> Column:
    silence = F.when(~F.col("views"), F.lit(rewards.silence))
    return F.transform(
        F.arrays_zip("made.items", "made.probabilities", "made.predicted"),
        lambda slot, place: F.struct(
            slot["items"].alias("item"),
            place.alias("place"),
            F.coalesce(F.exists("events", lambda event: event["item"] == slot["items"]), F.lit(False)).alias("clicked"),
            F.coalesce(F.col("outcomes")[slot["items"]], silence).alias("reward"),
            slot["probabilities"].alias("probability"),
            slot["predicted"].alias("predicted"),
        ),
    )
