"""Features, each declared once and computed by the same code in training and in serving.

Towers read tokens (hashed content and profile) and history; the ranker reads the numbers of RANKER_FEATURES. The hash
of all declarations goes into every release: serving refuses one made with other declarations.
"""

import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Float32, Float64, Int64

TOKEN_BUCKETS = 8_191  # prime; id 0 is padding, ids 1..TOKEN_BUCKETS are hashes
ITEM_TOKENS = 24
USER_TOKENS = 12
KIND_BUCKETS = 127
DAY_MS = 86_400_000
GAP_BUCKETS = 32  # the last one begins at 34 years

POSITIVE, NEGATIVE = "+", "-"  # how the kinds of a history end


class HistoryEvent(NamedTuple):
    """Something a user did with an item, as the models read it.

    A history holds each event once, in the order in which they became known: by time, of the same time by item, then by
    kind (by code point, as Redis and Spark do).
    """

    item: str
    kind: str  # the interaction's type, and whether it was positive: `rating+`, `click+`, `dislike-`
    time: int  # ms since the epoch: when it became known, strictly after which it is history

    @property
    def positive(self) -> bool:
        """Whether the interaction was positive."""
        return self.kind.endswith(POSITIVE)


def kind_of(interaction: str, positive: bool) -> str:
    """The kind of an interaction of the type."""
    return interaction + (POSITIVE if positive else NEGATIVE)


@dataclass(frozen=True, slots=True)
class Feature:
    """What the models read of a user, an item or both."""

    name: str
    source: str  # user: kept in the online store; item: computed by the Spark job; request: computed for each candidate
    default: float | tuple[()]  # where nothing is known, or what is known is stale
    meaning: str
    dtype: str = "float32"
    window_days: float | None = None  # how far it looks back from the moment it is computed for; None: to the beginning
    ttl_days: float | None = None  # after so long it is stale, and reads as its default; None: never

    def begins(self, moment: int) -> int:
        """The first time that it looks at when it is computed for the moment (ms)."""
        return 0 if self.window_days is None else moment - int(self.window_days * DAY_MS)

    def is_stale(self, age_ms: int) -> bool:
        """Whether it reads as its default so long after the moment it was computed for."""
        return self.ttl_days is not None and age_ms > self.ttl_days * DAY_MS


RECENT_POPULARITY = Feature(
    "recent_popularity", "item", 0.0, "ln(1 + the same within the window)", window_days=14.0, ttl_days=28.0
)
USER_FEATURES = (
    Feature("history", "user", (), "what a user did with items, newest first", "list<item, kind, time>"),
    Feature("profile", "user", (), "what is known of the user, as name=value", "list<string>"),
)
ITEM_FEATURES = (
    Feature("popularity", "item", 0.0, "ln(1 + users with a positive interaction)"),
    RECENT_POPULARITY,
    Feature("positive_rate", "item", 0.5, "share of positive interactions, shrunk to the log's by 10 pseudo-counts"),
    Feature("known", "item", 0.0, "1 if the item was in the training log"),
)
REQUEST_FEATURES = (
    Feature("affinity", "request", 0.0, "<user vector, item vector>"),
    Feature("history_max", "request", 0.0, "largest <history item vector, item vector>"),
    Feature("history_mean", "request", 0.0, "mean <history item vector, item vector>"),
    Feature("recent_mean", "request", 0.0, "the same over the newest 5 items of the history"),
    Feature("history_length", "request", 0.0, "ln(1 + items in the history that the tower reads)"),
    Feature("cluster_max", "request", 0.0, "largest <centroid of a cluster of the user, item vector>"),
    Feature("cluster_mean", "request", 0.0, "mean of the same, by the clusters' weights"),
    Feature("context_peak", "request", 0.0, "largest weight among the user's clusters"),
)
RANKER_FEATURES = ITEM_FEATURES + REQUEST_FEATURES
FEATURES = USER_FEATURES + RANKER_FEATURES
UNKNOWN_ITEM = np.array([feature.default for feature in ITEM_FEATURES], dtype=np.float32)
_RECENT = 5


def features_hash() -> str:
    """Identifies the declarations above: the same in training and serving, or the release is refused."""
    sizes = (TOKEN_BUCKETS, ITEM_TOKENS, USER_TOKENS, KIND_BUCKETS, GAP_BUCKETS)
    declared = repr(([astuple(f) for f in FEATURES], sizes))
    return hashlib.sha256(declared.encode()).hexdigest()[:16]


def kind_id(kind: str) -> int:
    """The number by which the user tower knows a kind, from 1; different kinds may share one, as tokens do."""
    return zlib.crc32(kind.encode()) % KIND_BUCKETS + 1


def gap_buckets(times: Int64) -> Int64:
    """The time since the event before, in buckets: 0 for the first event, then 1 + floor(log2(1 + seconds)), at most
    GAP_BUCKETS - 1.

    times: (..., L) ms, oldest first; the result has its shape. What stands after a list's end is the caller's to mask.
    """
    seconds = np.maximum(np.diff(times, axis=-1), 0) // 1000
    buckets = np.zeros(times.shape, dtype=np.int64)
    buckets[..., 1:] = np.minimum(1 + np.floor(np.log2(1.0 + seconds)), GAP_BUCKETS - 1)
    return buckets


def token_ids(tokens: Sequence[str], length: int) -> Int64:
    """Hashes `name=value` tokens to ids, padded with 0 (or cut) to the length; the order of tokens does not matter.

    The hash is CRC-32, which Spark computes alike.
    """
    ids = sorted(zlib.crc32(token.encode()) % TOKEN_BUCKETS + 1 for token in set(tokens))[:length]
    return np.array(ids + [0] * (length - len(ids)), dtype=np.int64)


def at_age(item_features: Float32, age_ms: int) -> Float32:
    """Item features (n, len(ITEM_FEATURES)) as they read so long after the moment they were computed for: those that
    are stale by then as their defaults."""
    stale = [place for place, feature in enumerate(ITEM_FEATURES) if feature.is_stale(age_ms)]
    if not stale:
        return item_features
    aged = item_features.copy()
    aged[:, stale] = UNKNOWN_ITEM[stale]
    return aged


def ranker_features(
    user: Float32, history: Float32, clusters: Float32, weights: Float64, items: Float32, item_features: Float32
) -> Float32:
    """The ranker's input for one user and many candidates.

    user: (d,) vector. history: (h, d) item vectors, newest first, h may be 0. clusters (K, d), weights (K,): the
    centroids of the user's clusters and their share of the context, K >= 1. items: (n, d). item_features:
    (n, len(ITEM_FEATURES)). Returns (n, len(RANKER_FEATURES) + d): the declared features in order, then user * item.
    """
    near: Float32 = items @ np.concatenate([user[None], history, clusters]).T
    rows = np.empty((len(items), len(RANKER_FEATURES) + items.shape[1]), dtype=np.float32)
    _fill(near, user, len(history), weights.astype(np.float32), items, item_features, rows)
    return rows


@numba.njit(cache=True, nogil=True)
def _fill(near, user, length, weights, items, item_features, rows):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills rows of ranker_features. near (n, 1 + h + K): inner products with user, history and clusters."""
    declared, recent, peak = item_features.shape[1], min(length, _RECENT), weights.max()
    for i in range(len(items)):
        row, found = rows[i], near[i]
        row[:declared] = item_features[i]
        row[declared : declared + 5] = 0.0
        row[declared] = found[0]
        if length:
            best, total, newest = found[1], np.float32(0.0), np.float32(0.0)
            for k in range(1, length + 1):
                best, total = max(best, found[k]), total + found[k]
                if k == recent:
                    newest = total
            row[declared + 1], row[declared + 2] = best, total / length
            row[declared + 3], row[declared + 4] = newest / recent, math.log1p(length)
        best, total = found[length + 1], np.float32(0.0)
        for k in range(len(weights)):
            best, total = max(best, found[length + 1 + k]), total + found[length + 1 + k] * weights[k]
        row[declared + 5], row[declared + 6], row[declared + 7] = best, total, peak
        for d in range(items.shape[1]):
            row[declared + 8 + d] = items[i, d] * user[d]
