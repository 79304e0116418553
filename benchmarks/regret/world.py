"""Worlds with known rewards: what a policy can be held against, round by round."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from feature_store.arrays import Float32, Float64, Int32, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.clusters import cluster_users, unit
from streaming.bandit.diag_linucb import context

CLUSTERS, ACTIVE_CLUSTERS, TEMPERATURE = 64, 5, 0.1
JOKES_FOR_CONTEXT = 30
FIRST_ITEMS = 20  # there from the start, where items arrive
_RATING_RANGE = 10.0  # jester's ratings lie in -10..10
_POSITIVE_RATING = 5.0
_PRINCIPAL_COMPONENTS = 16


class Environment(NamedTuple):
    """Users, items and the truth about them. Arrays that compiled loops read."""

    clusters: Int64  # (users, K) active clusters, ascending
    weights: Float64  # (users, K) of these clusters, adding up to 1
    cluster_count: int
    reward: Float32  # (users, items) expected reward, in [0, 1]
    predicted: Float32  # (users, items) the offline model's prediction; zeros where there is none
    arrival: Int64  # (items,) the round from which the item can be shown
    item_start: Int64  # (items + 1,) first edge of each item
    edge_cluster: Int32  # (edges,) ascending within an item
    menu_start: Int64  # (users + 1,)
    menu: Int64  # items that can be shown to each user once they have arrived, ascending
    noisy: bool  # rewards are drawn as 0 or 1; otherwise the reward is its expectation
    once: bool  # nobody is shown an item twice


def connected_to_all(items: int, clusters: int) -> tuple[Int64, Int32]:
    """(item_start, edge_cluster) of the graph with every edge."""
    starts = np.arange(items + 1, dtype=np.int64) * clusters
    return starts, np.tile(np.arange(clusters, dtype=np.int32), items)


def contexts(vectors: Float32, centroids: Float32) -> tuple[Int64, Float64]:
    """(clusters, weights), both (users, K), of unit vectors (users, d): Online Matching, Eq. 10."""
    sparse = [context(vector, centroids, ACTIVE_CLUSTERS, TEMPERATURE) for vector in vectors]
    return np.array([clusters for clusters, _ in sparse]), np.array([weights for _, weights in sparse])


def evenly_arriving(items: int, later: Int64, until: int) -> Int64:
    """(items,) rounds: `later` enter one after the other, evenly until round `until`; all others are there at 0."""
    arrival = np.zeros(items, dtype=np.int64)
    arrival[later] = (np.arange(1, len(later) + 1) * until) // max(1, len(later))
    return arrival


def jester(data: Path, seed: int, rounds: int, *, binary: bool, arriving: bool) -> Environment:
    """The 1,473 people who rated all 100 jokes of jester5k.

    30 jokes, drawn by the seed, make the context: their ratings, centred by joke, reduced to 16 principal components
    and scaled to length 1, are the vectors that are clustered. The other 70 jokes can be shown; nobody predicts
    anything about them. The reward is the rating scaled to [0, 1], or binary: whether it is above 5.
    """
    table = pq.read_table(source(data, "jester5k", "ratings.parquet"))
    table = table.filter(table["fully_observed_user"])
    ratings = np.zeros((table["user_id"].to_numpy().max() + 1, table["item_id"].to_numpy().max() + 1))
    ratings[table["user_id"].to_numpy(), table["item_id"].to_numpy()] = table["rating"].to_numpy()
    ratings = ratings[np.unique(table["user_id"].to_numpy())][:, np.unique(table["item_id"].to_numpy())]
    rng = np.random.default_rng(seed)
    jokes = rng.permutation(ratings.shape[1])
    known, shown = ratings[:, jokes[:JOKES_FOR_CONTEXT]], ratings[:, jokes[JOKES_FOR_CONTEXT:]]
    left, singular, _ = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)
    vectors = unit((left * singular)[:, :_PRINCIPAL_COMPONENTS].astype(np.float32))
    users, items = shown.shape
    start, cluster = connected_to_all(items, CLUSTERS)
    clusters, weights = contexts(vectors, cluster_users(vectors, CLUSTERS, seed))
    reward = shown > _POSITIVE_RATING if binary else (shown + _RATING_RANGE) / (2 * _RATING_RANGE)
    return Environment(
        clusters=clusters,
        weights=weights,
        cluster_count=CLUSTERS,
        reward=reward.astype(np.float32),
        predicted=np.zeros((users, items), np.float32),
        arrival=evenly_arriving(items, rng.permutation(items)[FIRST_ITEMS if arriving else items :], rounds // 2),
        item_start=start,
        edge_cluster=cluster,
        menu_start=np.arange(users + 1, dtype=np.int64) * items,
        menu=np.tile(np.arange(items, dtype=np.int64), users),
        noisy=False,
        once=False,
    )


def upworthy(data: Path, campaigns: slice) -> Iterator[Environment]:
    """Tests of the Upworthy archive as campaigns of their own: the arms' click rates are the truth, and there is no
    context: one cluster of weight 1. `campaigns` picks from one fixed random order of all tests."""
    table = pq.read_table(
        source(data, "upworthy-ab-tests", "arms.parquet"), columns=["test_id", "impressions", "clicks"]
    )
    table = table.sort_by("test_id")
    rates = table["clicks"].to_numpy() / table["impressions"].to_numpy()
    firsts = np.unique(np.array(table["test_id"].to_pylist()), return_index=True)[1]
    tests = np.split(rates, firsts[1:])
    for test in np.random.default_rng(0).permutation(len(tests))[campaigns]:
        arms = len(tests[test])
        start, cluster = connected_to_all(arms, 1)
        yield Environment(
            clusters=np.zeros((1, 1), np.int64),
            weights=np.ones((1, 1)),
            cluster_count=1,
            reward=tests[test].astype(np.float32)[None],
            predicted=np.zeros((1, arms), np.float32),
            arrival=np.zeros(arms, np.int64),
            item_start=start,
            edge_cluster=cluster,
            menu_start=np.array([0, arms], np.int64),
            menu=np.arange(arms, dtype=np.int64),
            noisy=True,
            once=False,
        )


def source(data: Path, data_set: str, name: str) -> Path:
    """The path of a data set's file. Raises InvalidInput if it is not there."""
    path = data / data_set / name
    if not path.is_file():
        raise InvalidInput(f"The bench needs {path}. Give the folder that holds {data_set}/{name} with --data.")
    return path
