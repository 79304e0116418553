"""What can be recommended without any model: what many like."""

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.definitions import ITEM_FEATURES
from online_serving.allowed import Allowed
from online_serving.corpus import Corpus
from online_serving.pipeline.candidates import POPULAR
from online_serving.pipeline.request import Candidates, Recommendation, Request, UserFeatures
from online_serving.pipeline.rules import allowed_items
from online_serving.pipeline.slate_rules import best_under, fitted, pinned_items, slate_rules
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot

_NAMES = [feature.name for feature in ITEM_FEATURES]
_LATELY, _EVER = _NAMES.index("recent_popularity"), _NAMES.index("popularity")


def most_popular(
    snapshot: Snapshot, request: Request, user: UserFeatures, serving: ServingSettings, corpus: Corpus | None
) -> Recommendation:
    """The items that most users liked when the release was made, lately before ever, of equals by position; by the
    request's rules, without exploration. Predictions are shares of the largest popularity: an order, no probabilities.
    """
    with allowed_items(snapshot, request, user.shown, serving, corpus) as (allowed, hits):
        pinned = pinned_items(snapshot, request, allowed)
        found, score = _best(snapshot, allowed, max(request.slate_size, serving.candidates), list(pinned))
    if request.pins:
        hits["pins_not_allowed"] = len(request.pins) - len(pinned)
    rules = slate_rules(snapshot, request, found, tuple(pinned))
    best = best_under(rules, score, max(0, request.slate_size - len(pinned)))
    items, scores, n = snapshot.graph.ids(found[best].tolist()), score[best].tolist(), len(best)
    beside = score[np.searchsorted(found, list(pinned))].tolist()
    return Recommendation(
        clusters=[], weights=[], history=[], history_kinds=[], history_times=[], profile=[],
        items=items, shown=n, sources=["popular"] * n, predicted=scores, mean=scores, bonus=[0.0] * n, edges=[0] * n,
        probabilities=[1.0] * n, rules=hits,
        candidates=Candidates(snapshot.graph, found[best], score[best], np.full(n, POPULAR, np.uint8)),
        pinned=snapshot.graph.ids(list(pinned)) if pinned else None,
        pinned_places=fitted(list(pinned.values()), n + len(pinned)) if pinned else None, pinned_predicted=beside,
        pinned_mean=beside,
    )  # fmt: skip


def _best(snapshot: Snapshot, allowed: Allowed, count: int, pinned: list[int]) -> tuple[Int64, Float64]:
    """The most popular items and those that are pinned, ascending, and how popular they are."""
    positions = np.flatnonzero(allowed.mask) if allowed.few is None else allowed.few
    features = snapshot.item_features[positions].astype(np.float64)
    score = features[:, _LATELY] + 1e-3 * features[:, _EVER]
    chosen = np.sort(np.argsort(-score, kind="stable")[:count])
    chosen = np.union1d(chosen, np.searchsorted(positions, pinned)) if pinned else chosen
    return positions[chosen], score[chosen] / max(score.max(initial=0.0), 1.0)
