"""What the offline model predicts on the edges of the graph."""

import numpy as np

from feature_store.arrays import Float32, Float64, Int64
from feature_store.definitions import ranker_features
from feature_store.sums import ITEM, Rows
from offline_training.carry_over.ensemble import with_item_values
from offline_training.retrieval.sequences import Sequences
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import context

USERS_PER_CLUSTER = 16


def offline_values(
    snapshot: Snapshot, rows: Rows, user_vectors: Float32, people: Sequences, cluster: Int64, rng: np.random.Generator
) -> Float64:
    """Offline value (n,) of every row: for an edge the ranker's mean prediction over up to USERS_PER_CLUSTER sampled
    users of the cluster (for a cluster without users, over the user nearest to it), for an item the mean over its
    edges' trials; NaN for items that the release does not know.

    user_vectors (U, d), people (in positions of the release), cluster (U,): the users under this release, U >= 1.
    """
    manifest = snapshot.manifest
    known = [snapshot.position(item) for item in rows.items]
    position = np.array([-1 if at is None else at for at in known], dtype=np.int64)[rows.item]
    edges = np.flatnonzero((rows.cluster != ITEM) & (position >= 0))
    edges = edges[np.argsort(rows.cluster[edges], kind="stable")]
    values = np.full(len(rows.item), np.nan)
    for group in np.split(edges, np.flatnonzero(np.diff(rows.cluster[edges])) + 1):
        if not len(group):
            continue
        number, positions = rows.cluster[group[0]], position[group]
        members = np.flatnonzero(cluster == number)
        if not len(members):
            members = np.array([np.argmax(user_vectors @ snapshot.centroids[number])])
        sampled = rng.choice(members, min(len(members), USERS_PER_CLUSTER), replace=False)
        predictions = np.zeros(len(positions))
        for user in sampled:
            events = np.diff(people.start)[user]
            past = people.histories(user[None], events[None], manifest.history_length).liked_items(0)
            clusters, weights = context(
                user_vectors[user], snapshot.centroids, manifest.active_clusters, manifest.context_temperature
            )
            features = ranker_features(
                user_vectors[user],
                snapshot.vectors[past],
                snapshot.centroids[clusters],
                weights,
                snapshot.vectors[positions],
                snapshot.item_features[positions],
            )
            predictions += snapshot.towers.predict(features)
        values[group] = predictions / len(sampled)
    return with_item_values(rows, values)
