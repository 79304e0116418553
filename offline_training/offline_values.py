"""What the offline model predicts on the edges of the graph."""

import numpy as np

from feature_store.definitions import ranker_features
from feature_store.sums import Sums, split_key
from offline_training.ensemble import item_values
from offline_training.retrieval.dataset import Float32, Int64
from online_serving.snapshot import Snapshot

USERS_PER_CLUSTER = 16


def offline_values(
    snapshot: Snapshot, sums: Sums, user_vectors: Float32, history: Int64, cluster: Int64, rng: np.random.Generator
) -> dict[str, float]:
    """Offline value of every row that the release knows the item of: for an edge the ranker's mean prediction over up
    to USERS_PER_CLUSTER sampled users of the cluster (for a cluster without users, over the user nearest to it), for an
    item the mean over its edges' trials.

    user_vectors (U, d), history (U, L) padded item positions plus one, cluster (U,): the users under this release, U >=
    1.
    """
    edges: dict[int, list[tuple[str, int]]] = {}
    for key in sums.keys():  # noqa: SIM118 - Sums is no mapping
        number, item = split_key(key)
        position = snapshot.position(item)
        if number is not None and position is not None:
            edges.setdefault(number, []).append((key, position))
    values: dict[str, float] = {}
    for number in sorted(edges):
        members = np.flatnonzero(cluster == number)
        if not len(members):
            members = np.array([np.argmax(user_vectors @ snapshot.centroids[number])])
        sampled = rng.choice(members, min(len(members), USERS_PER_CLUSTER), replace=False)
        positions = np.array([position for _, position in edges[number]])
        predictions = np.zeros(len(positions))
        for user in sampled:
            past = history[user][history[user] > 0] - 1
            features = ranker_features(
                user_vectors[user],
                snapshot.vectors[past],
                snapshot.vectors[positions],
                snapshot.item_features[positions],
            )
            predictions += snapshot.towers.predict(features)
        for (key, _), prediction in zip(edges[number], predictions / len(sampled), strict=True):
            values[key] = float(prediction)
    return values | item_values(sums, values)
