"""What a new release expects of the very trials that were logged before it."""

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.definitions import ranker_features
from feature_store.sums import EXPECTED, ITEM, F, N, Rows, S, Sums
from offline_training.retrieval.dataset import Impressions
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import context
from streaming.bandit.slates import expected, steepened
from streaming.bandit.update import Shares
from streaming.open_decisions import edge_mask

MOST = 20_000  # decisions, the newest ones
_BATCH = 512


def logged_values(snapshot: Snapshot, rows: Rows, impressions: Impressions) -> Float64:
    """The mean (n,) that the release expects of the logged trials of each row, in the light of their slates
    (streaming/bandit/slates.py), as if it had made the decisions: E / N for an item, f / s for an edge. NaN for rows
    without such trials.

    impressions: items by their positions in the release.
    """
    sums, decisions = Sums(), range(len(impressions.user))[-MOST:] if len(rows.item) else range(0)
    for start in range(decisions.start, decisions.stop, _BATCH):
        shares = Shares()
        _add(shares, sums, snapshot, impressions, np.arange(start, min(start + _BATCH, decisions.stop)))
        sums.add(*shares.additions())
    found, own = sums.select(rows), rows.cluster == ITEM
    total, trials = (np.where(own, found[:, item], found[:, edge]) for item, edge in ((EXPECTED, F), (N, S)))
    means: Float64 = np.divide(total, trials, out=np.full(len(trials), np.nan), where=trials > 0)
    return means


def _add(shares: Shares, sums: Sums, snapshot: Snapshot, impressions: Impressions, decisions: Int64) -> None:
    manifest, read = snapshot.manifest, impressions.histories.take(decisions)
    padded = np.vstack([np.zeros_like(snapshot.vectors[:1]), snapshot.vectors])
    users = snapshot.towers.user_vectors(
        padded[read.item], read.kind, read.gap, read.length, impressions.profile[decisions]
    )
    for at, (decision, user) in enumerate(zip(decisions.tolist(), users, strict=True)):
        items, rewards = impressions.items[decision], impressions.rewards[decision].tolist()
        clusters, weights = context(user, snapshot.centroids, manifest.active_clusters, manifest.context_temperature)
        features = ranker_features(
            user,
            snapshot.vectors[read.liked_items(at)],
            snapshot.centroids[clusters],
            weights,
            snapshot.vectors[items],
            snapshot.item_features[items],
        )
        predicted = snapshot.towers.predict(features).astype(np.float64)
        compared = steepened(predicted, manifest.steepness, len(predicted))
        names, active = snapshot.graph.ids(items.tolist()), clusters.tolist()
        shares.add(
            [sums.numbers[name] for name in names],
            expected(compared.tolist(), rewards),
            [edge_mask(snapshot.graph, active, name) for name in names],
            active,
            weights.tolist(),
            (0.0, 1.0, 0.0, 0.0),
        )
