"""From a user's features to the numbers that the models read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store.definitions import USER_TOKENS, HistoryEvent, ranker_features, token_ids
from online_serving.pipeline.request import Float32, Float64, Int64, Request, UserFeatures
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import context


class EncodedUser(NamedTuple):
    """A user as the models see them."""

    vector: Float32  # (d,)
    events: list[HistoryEvent]  # the history that was read, newest first, items that nothing is known of included
    history: Int64  # positions of the others' items
    profile: list[str]  # the tokens that were read
    clusters: Int64  # (K,)
    weights: Float64  # (K,)


def encode_user(snapshot: Snapshot, user: UserFeatures, request: Request) -> EncodedUser:
    """User vector and context (Online Matching, Eq. 10). Somebody unknown has an empty history, which the user tower
    has an answer for."""
    manifest = snapshot.manifest
    events = events_read(user.history, manifest.history_length)
    history = snapshot.positions([event.item for event in events])
    profile = _merged(user.profile, request.context)
    padded = np.zeros((1, manifest.history_length, manifest.dimensions), dtype=np.float32)
    mask = np.zeros((1, manifest.history_length), dtype=np.float32)
    padded[0, : len(history)] = snapshot.vectors[history]
    mask[0, : len(history)] = 1
    vector = snapshot.towers.user_vectors(padded, mask, token_ids(profile, USER_TOKENS)[None])[0]
    clusters, weights = context(vector, snapshot.centroids, manifest.active_clusters, manifest.context_temperature)
    return EncodedUser(vector, events, history, profile, clusters, weights)


def events_read(history: Sequence[HistoryEvent], length: int) -> list[HistoryEvent]:
    """What the user tower reads of a history, newest first: what the user liked, the newest `length` of it."""
    return [event for event in history if event.positive][:length]


def candidate_features(snapshot: Snapshot, user: EncodedUser, candidates: Int64) -> Float32:
    """(n, F) the ranker's input for candidates (n,)."""
    return ranker_features(
        user.vector,
        snapshot.vectors[user.history],
        snapshot.vectors[candidates],
        snapshot.item_features[candidates],
    )


def _merged(profile: Sequence[str], context: Sequence[str]) -> list[str]:
    """Profile tokens, those of the request in place of stored ones of the same name."""
    if not context:
        return list(profile)
    named = {token.partition("=")[0] for token in context}
    return sorted({*context, *(token for token in profile if token.partition("=")[0] not in named)})
