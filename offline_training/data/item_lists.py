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
    scored = _item_cf(taken, rule) if isinstance(rule, ItemCf) else _swing(taken, rule)
    best = Window.partitionBy("item").orderBy(F.desc("score"), "other")
    entry = F.struct("rank", "other", "score")
    lists = (
        scored.where(F.col("score") > 0)
        .withColumn("rank", F.row_number().over(best))
        .where(F.col("rank") <= length)
        .groupBy("item")
        .agg(F.array_sort(F.collect_list(entry)).alias("list"))
    )
    return lists.select("item", F.col("list.other").alias("items"), F.col("list.score").alias("scores"))


def _taken(users: DataFrame, newest: int, before_ms: int | None) -> DataFrame:
    """user, item, place, size: distinct positives of each user, oldest first; size is how many they are."""

    def counts(event: Column) -> Column:
        return event["positives"] if before_ms is None else event["positives"] & (event["times"] < before_ms)

    positives = F.filter(F.arrays_zip("items", "positives", "times"), counts)
    latest = F.slice(F.array_distinct(F.reverse(positives["items"])), 1, newest)  # an item stands where it came last
    return users.select("user", latest.alias("latest")).select(
        "user", F.size("latest").alias("size"), F.posexplode("latest").alias("age", "item")
    )


def _item_cf(taken: DataFrame, rule: ItemCf) -> DataFrame:
    """item, other, score."""
    stretch = F.floor(F.col("age") / rule.reach)  # what is within reach lies in the same stretch or beside it
    first = taken.select("user", "item", "age", F.pow("size", F.lit(-rule.user_power)).alias("weight"))
    first = first.withColumn("stretch", F.explode(F.array(stretch - 1, stretch, stretch + 1)))
    second = taken.select("user", F.col("item").alias("other"), F.col("age").alias("other_age"))
    second = second.withColumn("stretch", F.floor(F.col("other_age") / rule.reach))
    steps = F.col("age") - F.col("other_age")  # positive: the other one came later
    pairs = first.join(second, ["user", "stretch"]).where((steps != 0) & (F.abs(steps) <= rule.reach))
    direction = F.when(steps > 0, 1.0).otherwise(rule.backward)
    weight = F.col("weight") * direction * F.pow(F.lit(rule.decay), F.abs(steps) - 1)
    summed = pairs.groupBy("item", "other").agg(F.sum(weight).alias("summed"))
    count = taken.groupBy("item").agg(F.count("*").alias("users"))
    of_item = count.select("item", F.pow("users", F.lit(-rule.trigger_power)).alias("of_item"))
    of_other = count.select(F.col("item").alias("other"), F.pow("users", F.lit(-rule.target_power)).alias("of_other"))
    score = (F.col("summed") * F.col("of_item") * F.col("of_other")).alias("score")
    return summed.join(of_item, "item").join(of_other, "other").select("item", "other", score)


def _swing(taken: DataFrame, rule: Swing) -> DataFrame:
    """item, other, score."""
    some = Window.partitionBy("item").orderBy(F.xxhash64("user"), "user")
    read = taken.withColumn("rank", F.row_number().over(some)).where(F.col("rank") <= rule.users_per_item)
    first = read.select("item", "user", F.pow("size", F.lit(-0.5)).alias("weight"))
    second = first.select("item", F.col("user").alias("peer"), F.col("weight").alias("peer_weight"))
    shared = (
        first.join(second, "item")
        .where(F.col("user") < F.col("peer"))
        .groupBy("user", "peer")
        .agg(F.collect_list("item").alias("both"), F.first(F.col("weight") * F.col("peer_weight")).alias("weight"))
        .where(F.size("both") > 1)
        .withColumn("weight", F.col("weight") / (rule.alpha + F.size("both")))
    )
    pairs = shared.select("both", "weight", F.explode("both").alias("item"))
    pairs = pairs.select("item", "weight", F.explode("both").alias("other")).where(F.col("item") != F.col("other"))
    return pairs.groupBy("item", "other").agg(F.sum("weight").alias("score"))
