"""The Spark job that makes item-to-item lists: for every item, the items that people take up with it, best first.

This is the Indexer Building Stage of PI2I (arXiv 2601.16815): lists are cut late, because what a list leaves out no
scorer can bring back. No row passes through Python, and nothing is collected.
"""

import math
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

_FADED = 0.01  # pairs that would weigh less are not made


@dataclass(frozen=True)
class ItemCf:
    """How what users took up one after the other becomes the score of a list.

    s(i -> j) = n_i^-b n_j^-c sum over users of m_u^-a w(p_j - p_i), with n the users of an item, m_u the items of a
    user, p the places in the user's sequence, w(k) = decay^(k - 1) for k > 0 and backward * decay^(-k - 1) for k < 0.
    With a = 1, b = c = 1/2 and decay = backward = 1 it is the linear filter of GF-CF (Shen et al., CIKM 2021, Eq. 8).
    A smaller c leaves popular items more of their lead.
    """

    user_power: float = 1.0  # a
    trigger_power: float = 0.5  # b
    target_power: float = 0.3  # c
    decay: float = 1.0  # 1: how far apart does not matter
    backward: float = 1.0  # 1: which came first does not matter
    newest: int = 500  # items of a user that are read, the newest: a heavy user makes newest^2 pairs and no more

    @property
    def reach(self) -> int:
        """The largest distance of a pair that is made."""
        if self.decay >= 1:
            return self.newest
        return max(1, min(self.newest, 1 + math.floor(math.log(_FADED) / math.log(self.decay))))


# Near what sequential nearest neighbours are best with on MovieLens-1M; not tuned further.
SEQUENTIAL = ItemCf(user_power=0.0, decay=0.8, backward=0.3)


@dataclass(frozen=True)
class Swing:
    """Swing (Yang et al., arXiv 2010.05525, Eq. 3): s(i, j) = sum over pairs of users u, v who took up both of
    1 / sqrt(m_u m_v) / (alpha + items that both took up). Two users who share little else say more.

    An item with more users than users_per_item is seen through that many of them, by the hash of the user: hot items
    see the same ones, whose baskets therefore stay whole.
    """

    alpha: float = 1.0
    users_per_item: int = 100
    newest: int = 500


def item_lists(users: DataFrame, rule: ItemCf | Swing, length: int, before_ms: int | None = None) -> DataFrame:
    """item, items, scores: of every item that was taken up with another one, the best `length` others, best first,
    equals by id. users: rows of `users/`, of which the positives count, the newest of each item; before_ms: only those
    before."""
    taken = _taken(users, rule.newest, before_ms)
    items = _numbered(taken)
    scored = _item_cf(taken, items, rule) if isinstance(rule, ItemCf) else _swing(taken, items, rule)
    best = Window.partitionBy("number").orderBy(F.desc("score"), "other")
    ranked = scored.where(F.col("score") > 0).withColumn("rank", F.row_number().over(best))
    lists = (
        ranked.where(F.col("rank") <= length)
        .join(items.select(F.col("number").alias("other"), F.col("item").alias("name")), "other")
        .groupBy("number")
        .agg(F.array_sort(F.collect_list(F.struct("rank", "name", "score"))).alias("list"))
        .join(items.select("number", "item"), "number")
    )
    return lists.select("item", F.col("list.name").alias("items"), F.col("list.score").alias("scores"))


def _taken(users: DataFrame, newest: int, before_ms: int | None) -> DataFrame:
    """user, size, age, item: distinct positives of each user, the newest has age 0; size is how many they are."""

    def counts(event: Column) -> Column:
        return event["positives"] if before_ms is None else event["positives"] & (event["times"] < before_ms)

    positives = F.filter(F.arrays_zip("items", "positives", "times"), counts)
    latest = F.slice(F.array_distinct(F.reverse(positives["items"])), 1, newest)  # an item stands where it came last
    return users.select("user", latest.alias("latest")).select(
        "user", F.size("latest").alias("size"), F.posexplode("latest").alias("age", "item")
    )


def _numbered(taken: DataFrame) -> DataFrame:
    """item, users (how many took it up), number (in the order of ids: pairs of numbers are the quicker keys)."""
    count = taken.groupBy("item").agg(F.count("*").alias("users"))
    return count.withColumn("number", F.row_number().over(Window.orderBy("item")))


def _item_cf(taken: DataFrame, items: DataFrame, rule: ItemCf) -> DataFrame:
    """number, other, score."""
    trigger = F.pow("users", F.lit(-rule.trigger_power))
    target = F.pow("users", F.lit(-rule.target_power)) * F.pow("size", F.lit(-rule.user_power))
    event = F.struct("age", "number", trigger.alias("trigger"), target.alias("target"))
    latest = taken.join(items, "item").groupBy("user").agg(F.array_sort(F.collect_list(event)).alias("latest"))
    pairs = _pairs(latest.select("latest.number", "latest.trigger", "latest.target"), "number", rule.reach)
    later, earlier = F.col("place"), F.col("place") + 1 + F.col("steps")
    faded = F.pow(F.lit(rule.decay), "steps")
    onward = faded * F.get("trigger", earlier) * F.get("target", later)
    back = faded * rule.backward * F.get("trigger", later) * F.get("target", earlier)
    up = F.col("second") < F.col("first")  # the smaller number came first
    summed = pairs.groupBy(F.least("first", "second").alias("low"), F.greatest("first", "second").alias("high")).agg(
        F.sum(F.when(up, onward).otherwise(back)).alias("up"), F.sum(F.when(up, back).otherwise(onward)).alias("down")
    )
    return _both_ways(summed)


def _swing(taken: DataFrame, items: DataFrame, rule: Swing) -> DataFrame:
    """number, other, score."""
    user = F.struct(F.xxhash64("user").alias("hash"), F.pow("size", F.lit(-0.5)).alias("weight"))
    some = taken.groupBy("item").agg(F.min_by(user, user, rule.users_per_item).alias("users"))
    shared = (
        _pairs(some.join(items.select("item", "number"), "item"), "users", rule.users_per_item)
        .groupBy("first", "second")
        .agg(F.array_sort(F.collect_list("number")).alias("both"))
        .where(F.size("both") > 1)
    )
    weight = F.col("weight") / (rule.alpha + F.size("both"))
    pairs = _pairs(shared.select("both", (F.col("first.weight") * F.col("second.weight")).alias("weight")), "both")
    summed = pairs.groupBy(F.col("first").alias("low"), F.col("second").alias("high")).agg(F.sum(weight).alias("up"))
    return _both_ways(summed.withColumn("down", F.col("up")))


def _pairs(lists: DataFrame, name: str, reach: int | None = None) -> DataFrame:
    """The lists' columns with first, second, place, steps: each pair in the list of the name once, by the place of its
    first from 0, and how many lie between; at most `reach` apart. In the task that has the list: nothing is joined."""
    placed = lists.select("*", F.posexplode(name).alias("place", "first"))
    rest = F.slice(name, F.col("place") + 2, F.lit(reach) if reach else F.size(name))
    return placed.select("*", F.posexplode(rest).alias("steps", "second"))


def _both_ways(summed: DataFrame) -> DataFrame:
    """number, other, score: of pairs low and high, with `up` the score from low to high and `down` that back."""
    up = F.struct(F.col("low").alias("number"), F.col("high").alias("other"), F.col("up").alias("score"))
    down = F.struct(F.col("high").alias("number"), F.col("low").alias("other"), F.col("down").alias("score"))
    return summed.select(F.inline(F.array(up, down)))
