"""A sparse world with the real offline model: MovieLens-1M, its towers, its ranker and its graph."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.regret.offline_model import Ratings, predictions, train
from benchmarks.regret.taste import probabilities
from benchmarks.regret.world import CLUSTERS, Environment, contexts, evenly_arriving, source
from feature_store.arrays import Int64
from feature_store.contracts.catalogue import Item, UserProfile
from feature_store.definitions import ITEM_TOKENS, token_ids
from feature_store.graph import Graph
from offline_training.clusters import cluster_users, nearest_items
from offline_training.evaluation.metrics import auc
from offline_training.progress import Progress
from offline_training.retrieval.dataset import profile_ids

EARLY_SHARE, EARLY_AT_LEAST = 0.2, 20  # of a person's ratings, in order of time
FRESH_SHARE = 0.2  # of the items
EDGES_PER_CLUSTER = 100


class Sparse(NamedTuple):
    """A world whose fresh items are there from the start, until `arriving` says when they enter."""

    world: Environment
    fresh: Int64  # items that the offline model has never seen a rating of
    figures: dict[str, float]

    def save(self, path: Path) -> None:
        """Writes one .npz file, without the figures."""
        np.savez(path, fresh=self.fresh, **self.world._asdict())

    @classmethod
    def load(cls, path: Path) -> "Sparse":
        """Reads what save wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        fresh = found.pop("fresh")
        scalars = {name: value.item() for name, value in found.items() if value.ndim == 0}
        return cls(Environment(**(found | scalars)), fresh, {})


def movielens(data: Path, progress: Progress) -> Sparse:
    """Builds the world, the same every time.

    The offline model is trained by the product's own code on the first fifth of what each person rated (at least 20
    ratings), without the fifth of the items that is fresh. Users are clustered by their vectors, and can be shown what
    the graph connects their active clusters to, each item once. The reward is 1 with the probability that they would
    like it, fitted on all of the 995,278 ratings that are known to be a like or not.
    """
    table = pq.read_table(source(data, "ml-1m", "ratings.parquet"))
    table = table.filter(pc.is_valid(table["liked"])).sort_by(
        [("user_id", "ascending"), ("sequence_index", "ascending")]
    )
    users, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    items, item = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    ratings = Ratings(user, item, table["liked"].to_numpy(zero_copy_only=False).astype(np.float64))
    truth = probabilities(ratings.user, ratings.item, ratings.liked).astype(np.float32)
    count = np.bincount(user)[user]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    early = np.maximum(EARLY_AT_LEAST, EARLY_SHARE * count)
    fresh = np.random.default_rng(0).random(len(items)) < FRESH_SHARE
    stage = np.where(place < early / 2, 1, 2) * ((place < early) & ~fresh[item])
    offline = train(_item_tokens(data, items), _profiles(data, users), ratings, stage, progress)

    centroids = cluster_users(offline.user_vectors, CLUSTERS, 0)
    nearest = nearest_items(offline.item_vectors, centroids, EDGES_PER_CLUSTER)
    cluster = np.repeat(np.arange(CLUSTERS), nearest.shape[1])
    graph = Graph.build([str(number) for number in items], nearest.ravel(), cluster, CLUSTERS)
    connected = np.flatnonzero(np.diff(graph.item_start))
    clusters, weights = contexts(offline.user_vectors, centroids)
    menus = [_menu(graph, active, connected) for active in clusters]
    predicted = predictions(offline, connected)
    renumbered = np.full(len(items), -1)
    renumbered[connected] = np.arange(len(connected))
    later = (place >= early) & (renumbered[item] >= 0)
    world = Environment(
        clusters=clusters,
        weights=weights,
        cluster_count=CLUSTERS,
        reward=truth[:, connected],
        predicted=predicted,
        arrival=np.zeros(len(connected), np.int64),
        item_start=np.append(graph.item_start[connected], graph.n_edges),
        edge_cluster=graph.edge_cluster,
        menu_start=np.cumsum([0] + [len(menu) for menu in menus]),
        menu=np.concatenate(menus),
        noisy=True,
        once=True,
    )
    figures = {
        "items": float(len(connected)),
        "fresh": float(fresh[connected].sum()),
        "edges": float(graph.n_edges),
        "items_a_user_can_be_shown": len(world.menu) / len(users),
        "offline_auc_later": auc(predicted[user[later], renumbered[item[later]]], ratings.liked[later]),
        "truth_auc_later": auc(world.reward[user[later], renumbered[item[later]]], ratings.liked[later]),
    }
    return Sparse(world, np.flatnonzero(fresh[connected]), figures)


def arriving(sparse: Sparse, rounds: int, seed: int) -> Environment:
    """The world with its fresh items entering evenly over the first half, in an order drawn by the seed."""
    later = np.random.default_rng(seed).permutation(sparse.fresh)
    return sparse.world._replace(arrival=evenly_arriving(len(sparse.world.arrival), later, rounds // 2))


def _menu(graph: Graph, active: Int64, connected: Int64) -> Int64:
    """Items connected to any active cluster, numbered by their place among the connected ones."""
    offered = np.unique(np.concatenate([graph.items_of(cluster) for cluster in active.tolist()]))
    menu: Int64 = np.searchsorted(connected, offered).astype(np.int64)
    return menu


def _item_tokens(data: Path, items: NDArray[np.int16]) -> Int64:
    rows = {row["item_id"]: row for row in pq.read_table(source(data, "ml-1m", "items.parquet")).to_pylist()}
    described = [
        Item(
            id=str(number),
            title=rows[number]["title"],
            categories=rows[number]["genres"].split("|"),
            attributes={"year": rows[number]["year"]},
        )
        for number in items.tolist()
    ]
    return np.array([token_ids(item.tokens(), ITEM_TOKENS) for item in described])


def _profiles(data: Path, users: NDArray[np.int16]) -> Int64:
    table = pq.read_table(source(data, "ml-1m", "users.parquet")).sort_by("user_id")
    table = table.filter(pc.is_in(table["user_id"], pa.array(users)))
    columns = table.select(["gender", "age_group", "occupation_code"])
    return profile_ids([UserProfile(attributes=row).tokens() for row in columns.to_pylist()])
