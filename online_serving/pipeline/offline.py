"""What a release recommends by itself, before a bandit has learnt anything and without rules."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from online_serving.allowed import Allowed
from online_serving.pipeline.candidates import from_clusters, from_index, from_lists
from online_serving.pipeline.features import EncodedUser, candidate_features
from online_serving.snapshot import Snapshot


class Ranked(NamedTuple):
    """Items, best first."""

    items: Int64  # (n,) positions
    predicted: Float64  # (n,) probabilities of a reward


def two_stage_order(snapshot: Snapshot, user: EncodedUser, allowed: Bool, candidates: int) -> Ranked:
    """The union of what index, clusters and item lists offer of the allowed (I,) items, at most `candidates` each, by
    the ranker's prediction; of equals by position."""
    indexed = from_index(snapshot, user, Allowed.of(allowed), candidates)
    others = [source(snapshot, user, allowed, candidates) for source in (from_clusters, from_lists)]
    offered = np.unique(np.concatenate([indexed, *others]))
    if not len(offered):
        return Ranked(offered.astype(np.int64), np.empty(0))
    predicted = snapshot.towers.predict(candidate_features(snapshot, user, offered)).astype(np.float64)
    order = np.argsort(-predicted, kind="stable")
    return Ranked(offered[order], predicted[order])
