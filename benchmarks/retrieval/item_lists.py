"""The product's item lists, made by its Spark job, and their union with vectors, where nothing has a time."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from scipy import sparse

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.measure import Contender, FittedModel
from benchmarks.retrieval.peers import LowPass
from feature_store.arrays import Float64, Int64
from infra.settings import load
from offline_training.data.item_lists import ItemCf, Swing, item_lists
from offline_training.evaluation.baselines import Interactions, weighted_past
from offline_training.retrieval.pi2i.lists import read_item_lists
from online_serving.item_lists import ItemLists

LISTS, UNION = "item_lists", "item_lists_and_vectors"


def union_contender(rule: ItemCf, length: int, *, factors: int, share: float) -> Contender:
    """Lists alone, and together with two linear towers: the scores of either, each divided by their deviation over the
    items, `share` times those of the vectors."""

    def fit(dataset: Dataset, train: Int64, seed: int) -> FittedModel:
        del seed
        from offline_training.data.spark import spark_session, stop_session  # asked for only when it takes part

        wanted = dataset.log.take(train[dataset.positive[train]])
        spark = spark_session(load().spark, "matchloop-bench-retrieval")
        try:
            lists = as_matrix(spark_lists(spark, wanted, rule, length))
        finally:
            stop_session(spark)
        vectors = LowPass(factors).fit(wanted)

        def by_lists(users: Int64, past: Int64) -> Float64:
            return _summed(lists, users, dataset.log.take(past[dataset.positive[past]]))

        def by_both(users: Int64, past: Int64) -> Float64:
            known = dataset.log.take(past[dataset.positive[past]])
            return _scaled(_summed(lists, users, known)) + share * _scaled(vectors.score(users, known))

        details: dict[str, Any] = {"rule": str(rule), "length": length, "factors": factors, "share": share}
        return FittedModel({LISTS: by_lists, UNION: by_both}, details | {"entries": lists.nnz})

    return Contender(UNION, fit)


def spark_lists(spark: SparkSession, wanted: Interactions, rule: ItemCf | Swing, length: int) -> ItemLists:
    """The lists of all items, as the Spark job makes them of what was wanted."""
    with tempfile.TemporaryDirectory(prefix="matchloop-lists-") as scratch:
        users, lists = Path(scratch) / "users.parquet", Path(scratch) / "lists"
        start = pa.array(np.searchsorted(wanted.user, np.arange(wanted.users + 1)), pa.int32())
        columns = {
            "user": pa.array([str(user) for user in range(wanted.users)]),
            "items": pa.ListArray.from_arrays(start, pc.cast(pa.array(wanted.item), pa.string())),
            "positives": pa.ListArray.from_arrays(start, pa.array(np.ones(len(wanted.item), np.bool_))),
            "times": pa.ListArray.from_arrays(start, pa.array(wanted.time)),
        }
        pq.write_table(pa.table(columns), users)
        item_lists(spark.read.parquet(str(users)), rule, length).write.parquet(str(lists))
        return read_item_lists(lists, {str(item): item for item in range(wanted.items)}, length)


def as_matrix(lists: ItemLists) -> sparse.csr_matrix:
    """(I, I): row i holds the list of item i."""
    row, place = np.nonzero(lists.items >= 0)
    column, scores = lists.items[row, place], lists.scores[row, place]
    return sparse.csr_matrix((scores, (row, column)), shape=(len(lists), len(lists)))


def _summed(lists: sparse.csr_matrix, users: Int64, past: Interactions) -> Float64:
    scores: Float64 = (weighted_past(users, past).astype(np.float32) @ lists).toarray()
    return scores


def _scaled(scores: Float64) -> Float64:
    deviation = scores.std(axis=1, keepdims=True)
    scaled: Float64 = scores / np.where(deviation > 0, deviation, 1)
    return scaled
