"""A change point: one release follows another, and what was learnt online with the first goes on with the second."""

from collections.abc import Sequence

import numpy as np

from feature_store.arrays import Int64
from feature_store.sums import Rows
from feature_store.translation import Translation
from offline_training.carry_over.ensemble import mix, translation, transport
from offline_training.carry_over.logged_values import logged_values
from offline_training.clusters import nearest_cluster
from offline_training.release.encoding import encode_users
from offline_training.retrieval.dataset import Impressions
from offline_training.retrieval.sequences import Sequences
from online_serving.snapshot import Snapshot


def between(old: Snapshot, new: Snapshot, items: Sequence[str], people: Sequences) -> Translation:
    """From the clusters of one release to those of the next, by where the same people are under either. people: with
    items by their row in `items`."""
    before, after = (_clusters(snapshot, items, people) for snapshot in (old, new))
    return translation(before, after, len(old.centroids), len(new.centroids))


def next_base(learnt: Rows, matrix: Translation, new: Snapshot, logged: Impressions, omega: float, keep: float) -> Rows:
    """What the bandit of a new release begins with: what was learnt, on the new clusters, and held against what the new
    release expects of the same trials (V1D3, infra/decisions/ensemble.md). omega, keep: as `mix` has them.

    logged: the trials, with items by their positions in the new release.
    """
    carried = transport(learnt, matrix, new.graph)
    return mix(carried, logged_values(new, carried, logged), omega, keep)


def _clusters(snapshot: Snapshot, items: Sequence[str], people: Sequences) -> Int64:
    """(U,) the cluster of each of the people under a release."""
    positions = [snapshot.position(item) for item in items]
    known = people.renumbered(np.array([-1 if position is None else position for position in positions], np.int64))
    everybody, events = np.arange(len(known.users)), np.diff(known.start)
    length = snapshot.manifest.history_length
    vectors = encode_users(snapshot.towers, snapshot.vectors, known, everybody, events, length)
    return nearest_cluster(vectors, snapshot.centroids)
