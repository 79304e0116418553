"""From a user's features to the numbers that the models read."""

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float32, Float64, Int64
from feature_store.definitions import (
    USER_TOKENS,
    HistoryEvent,
    at_age,
    gap_buckets,
    kind_id,
    ranker_features,
    token_ids,
)
from feature_store.item_ids import UNKNOWN
from online_serving.people import Events
from online_serving.pipeline.request import Request, UserFeatures
from online_serving.snapshot import Snapshot


class EncodedUser(NamedTuple):
    """A user as the models see them."""

    vector: Float32  # (d,)
    events: list[HistoryEvent]  # the newest of the history, newest first; what nothing is known of included
    liked: Int64  # positions of the items of the positive ones among them, newest first
    profile: list[str]  # the tokens that were read
    clusters: Int64  # (K,)
    weights: Float64  # (K,)
    age: int  # ms since the release was made


def encode_user(snapshot: Snapshot, user: UserFeatures, request: Request) -> EncodedUser:
    """User vector and context (Online Matching, Eq. 10). Somebody unknown has an empty history, which the user tower
    has an answer for."""
    manifest = snapshot.manifest
    length = manifest.history_length
    events = list(user.history[:length])
    places = snapshot.graph.positions(event.item for event in reversed(events))  # oldest first
    known = places != UNKNOWN
    read, positions = list(compress(reversed(events), known.tolist())), places[known]
    liked = np.array([event.positive for event in read], dtype=np.bool_)
    profile = _merged(user.profile, request.context)
    kinds = np.array([kind_id(event.kind) for event in read], dtype=np.int64)
    gaps = gap_buckets(np.array([event.time for event in read], dtype=np.int64))
    events_read = Events(positions, kinds, gaps)
    vector, clusters, weights = snapshot.people.encode(snapshot.vectors, events_read, token_ids(profile, USER_TOKENS))
    age = 0 if request.time is None else request.time - manifest.created
    return EncodedUser(vector, events, positions[liked][::-1], profile, clusters, weights, age)


def candidate_features(snapshot: Snapshot, user: EncodedUser, candidates: Int64) -> Float32:
    """(n, F) the ranker's input for candidates (n,)."""
    return ranker_features(
        user.vector,
        snapshot.vectors.take(user.liked, axis=0),
        snapshot.centroids.take(user.clusters, axis=0),
        user.weights,
        snapshot.vectors.take(candidates, axis=0),  # which is faster than an index
        at_age(snapshot.item_features.take(candidates, axis=0), user.age),
    )


def nearness(snapshot: Snapshot, user: EncodedUser, candidates: Int64) -> Float64:
    """(n,) how near candidates (n,) are to the user, (1 + cos) / 2: an order, no probabilities."""
    near: Float64 = (1 + (snapshot.vectors[candidates] @ user.vector).astype(np.float64).clip(-1, 1)) / 2
    return near


def _merged(profile: Sequence[str], context: Sequence[str]) -> list[str]:
    """Profile tokens, those of the request in place of stored ones of the same name."""
    if not context:
        return list(profile)
    named = {token.partition("=")[0] for token in context}
    return sorted({*context, *(token for token in profile if token.partition("=")[0] not in named)})
