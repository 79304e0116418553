"""Users as vectors: the user tower, the clusters near to what it gives, and what was computed of late."""

import threading
from typing import Any, NamedTuple

import faiss
import numpy as np

from feature_store.arrays import Float32, Float64, Int64
from online_serving.towers import Towers
from streaming.bandit.diag_linucb import MAX_ACTIVE_CLUSTERS, context

REMEMBERED = 10_000  # users, half a kilobyte each and their input


class Events(NamedTuple):
    """What the user tower reads of a history, oldest first: item positions, definitions.kind_id and gap_buckets, all
    (n,), of the length that it was trained with at most."""

    positions: Int64
    kinds: Int64
    gaps: Int64


class Encoded(NamedTuple):
    """A user as the models see them."""

    vector: Float32  # (d,)
    clusters: Int64  # (K,) ascending
    weights: Float64  # (K,)


class People:
    """Encodes users. Whoever comes back with the same events and profile is remembered: the answer is the same.

    May be used from several threads.
    """

    def __init__(self, towers: Towers, centroids: Float32, length: int, active: int, temperature: float) -> None:
        """centroids (C, d); length: of the longest history that is read; active, temperature: see context."""
        self._towers, self._centroids, self._length = towers, centroids, length
        self._active, self._temperature = min(active, len(centroids), MAX_ACTIVE_CLUSTERS), temperature
        self._index: Any = faiss.IndexFlatIP(centroids.shape[1])
        self._index.add(np.ascontiguousarray(centroids))
        self._known: dict[bytes, Encoded] = {}  # the one asked for last is the last
        self._lock = threading.Lock()

    def anew(self) -> "People":
        """The same, with nobody remembered: vectors of items have changed."""
        return People(self._towers, self._centroids, self._length, self._active, self._temperature)

    def encode(self, vectors: Float32, events: Events, tokens: Int64) -> Encoded:
        """vectors (I, d): of the items; tokens (USER_TOKENS,): ids of the profile's."""
        key = b"".join(array.tobytes() for array in (*events, tokens))
        with self._lock:
            found = self._known.pop(key, None)
        if found is None:
            found = self._encoded(vectors, events, tokens)
        with self._lock:
            self._known[key] = found
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return found

    def _encoded(self, vectors: Float32, events: Events, tokens: Int64) -> Encoded:
        read = len(events.positions)
        length = max(1, read) if self._towers.any_length else self._length
        history = np.zeros((1, length, vectors.shape[1]), dtype=np.float32)
        kinds, gaps = np.zeros((1, length), dtype=np.int64), np.zeros((1, length), dtype=np.int64)
        history[0, :read], kinds[0, :read], gaps[0, :read] = vectors[events.positions], events.kinds, events.gaps
        vector = self._towers.user_vectors(history, kinds, gaps, np.array([read]), tokens[None])[0]
        near = np.sort(self._index.search(vector[None], self._active)[1][0])  # of all, those that context would find
        place, weights = context(vector, self._centroids[near], self._active, self._temperature)
        return Encoded(vector, near[place], weights)
