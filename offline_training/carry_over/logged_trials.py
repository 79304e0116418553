"""A prior for a first namespace, from what was logged before it. Seeded trials are its base: they and those that come
online stay apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.decay import Decay
from feature_store.definitions import HistoryEvent
from feature_store.sums import Numbers, Rows, Sums
from feature_store.user_features import UserFeatures
from offline_training.data.lake import parquet_files
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from streaming.bandit.update import Shares
from streaming.open_decisions import edge_mask

MAX_CORRECTION = 10.0  # truncated importance weights (Ionides 2008): no trial counts for more
_COLUMNS = ["time", "history", "history_kinds", "history_times", "profile", "items", "rewards", "probabilities"]


def logged_prior(snapshot: Snapshot, impressions: Path, before_ms: int, discount: float, decay: Decay) -> Rows:
    """Sums of the logged trials of decisions made before the time (ms since the epoch).

    Each counts `discount / propensity` times, with 1 / propensity at most MAX_CORRECTION, and fades, as if the decision
    had been made by this release: its user in this release's clusters, its items with its predictions and edges.
    impressions: the training set of that name. Items that the release does not know are left out.
    """
    sums = Sums()
    for file in parquet_files(impressions):
        with pq.ParquetFile(file) as source:
            for batch in source.iter_batches(columns=_COLUMNS):
                shares = Shares()
                for row in batch.filter(pc.less(batch["time"], before_ms)).to_pylist():
                    _add(shares, sums.numbers, snapshot, row, discount * decay.trial(row["time"]))
                sums.add(*shares.additions())
    return sums.rows()


def _add(shares: Shares, numbers: Numbers, snapshot: Snapshot, row: dict[str, Any], discount: float) -> None:
    trials = [
        (item, at, reward, probability)
        for item, reward, probability in zip(row["items"], row["rewards"], row["probabilities"], strict=True)
        if (at := snapshot.position(item)) is not None
    ]
    if not trials:
        return
    history = list(map(HistoryEvent, row["history"], row["history_kinds"], row["history_times"]))
    user = encode_user(snapshot, UserFeatures(row["profile"], history, frozenset()), Request(slate_size=1))
    positions = np.array([at for _, at, _, _ in trials])
    predicted = snapshot.towers.predict(candidate_features(snapshot, user, positions)).tolist()
    clusters, weights = user.clusters.tolist(), user.weights.tolist()
    for (item, _, reward, probability), p in zip(trials, predicted, strict=True):
        v = discount / max(probability, 1 / MAX_CORRECTION)
        mask = edge_mask(snapshot.graph, clusters, item)
        shares.add([numbers[item]], [v * p], [mask], clusters, weights, (v, v, v * reward, v * reward * reward))
