"""What a release's visitors would be shown by different orders, and how good each is for everybody."""

from typing import NamedTuple

import numpy as np

from benchmarks.pay.release import visitors
from benchmarks.pay.world import World
from feature_store.arrays import Bool, Float64
from offline_training.evaluation.baselines import Baseline, MostPopular, MostPopularLately
from offline_training.evaluation.holdout import CANDIDATES, RECALL_SIZE, TOP_SIZE
from offline_training.evaluation.metrics import auc, calibration_curve, ndcg, places, recall
from offline_training.retrieval.popularity import RECENT_DAYS
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.offline import two_stage_order
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

SERVED, RETRIEVAL, RECENT_POPULARITY, POPULARITY = "served", "retrieval", "recent popularity", "popularity"
NDCG, RECALL, GAUC = f"ndcg@{TOP_SIZE}", f"recall@{RECALL_SIZE}", "gauc"
METRICS = (NDCG, RECALL, GAUC)
_BINS = 10


class Asked(NamedTuple):
    """What a release answered n people. quality: order -> (n, METRICS). returning (n,): whether training knew what they
    did. calibration (bins, 3): rows of calibration_curve of the first RECALL_SIZE that each would be offered."""

    quality: dict[str, Float64]
    returning: Bool
    calibration: Float64


def ask(world: World, snapshot: Snapshot) -> Asked:
    """Asks for everybody who came to like an item that training knew and that they had not met, at the moment at which
    the release was made. Items that training did not know take no part.

    NDCG and recall are of what is served: what the sources offer, in the ranker's order, and nothing behind it. GAUC is
    the AUC of each person's scores of everything, so of the ranker's whether an item is offered or not.
    """
    log, items = world.past.log, snapshot.size
    liked = log.take(np.flatnonzero(world.past.positive))
    lately: Baseline = MostPopularLately(snapshot.manifest.metrics.get("recent_days", RECENT_DAYS[0]))
    counts = {
        name: model.fit(liked).score(np.zeros(1, np.int64), liked)[0]
        for name, model in ((RECENT_POPULARITY, lately), (POPULARITY, MostPopular()))
    }
    quality: dict[str, list[list[float]]] = {name: [] for name in (SERVED, RETRIEVAL, *counts)}
    returning, predicted, came = [], [], []
    for user, features, likes in zip(world.visitors, visitors(world), world.likes[0], strict=True):
        allowed = snapshot.available.copy()
        allowed[log.item[log.user == user]] = False
        wanted = (likes[:items] > 0) & allowed
        if not wanted.any():
            continue
        encoded = encode_user(snapshot, features, Request(TOP_SIZE, time=world.moment))
        best = two_stage_order(snapshot, encoded, allowed, CANDIDATES)
        served = np.full(items, -np.inf)
        served[best.items] = best.predicted
        everything = candidate_features(snapshot, encoded, np.arange(items))
        scores = {RETRIEVAL: (snapshot.vectors @ encoded.vector).astype(np.float64), **counts}
        quality[SERVED].append(
            _quality(served, snapshot.towers.predict(everything).astype(np.float64), allowed, wanted)
        )
        for name, score in scores.items():
            quality[name].append(_quality(score, score, allowed, wanted))
        returning.append(bool(features.history))
        predicted.append(best.predicted[:RECALL_SIZE])
        came.append(wanted[best.items[:RECALL_SIZE]])
    curve = calibration_curve(np.concatenate(predicted), np.concatenate(came), _BINS)
    return Asked({name: np.array(rows) for name, rows in quality.items()}, np.array(returning), curve)


def _quality(order: Float64, scores: Float64, allowed: Bool, wanted: Bool) -> list[float]:
    found = places(np.where(allowed, order, -np.inf), np.flatnonzero(wanted))
    return [ndcg(found, TOP_SIZE), recall(found, RECALL_SIZE), auc(scores[allowed], wanted[allowed])]
