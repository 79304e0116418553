"""Candidates: a few hundred items out of the whole catalogue, from several sources at once.

A new source is a function, an entry in SOURCES and the setting that limits it.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.sums import SERVED
from online_serving.allowed import Allowed
from online_serving.pipeline.features import EncodedUser
from online_serving.pipeline.request import Uint8
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import Table

_BITS = 8  # of a source
_FRESH_LOOKED_AT = 10_000  # newest unknown items among which those with the fewest trials are sought


def from_index(snapshot: Snapshot, user: EncodedUser, allowed: Allowed, count: int) -> Int64:
    """The nearest allowed items of the user vector."""
    return snapshot.index.nearest(user.vector, snapshot.vectors, allowed, count)


def from_clusters(snapshot: Snapshot, user: EncodedUser, allowed: Bool, count: int) -> Int64:
    """Allowed items connected to the user's clusters; the nearest to the user if there are more than `count`."""
    named: Int64 = connected(snapshot.graph.adjacency, user.clusters, allowed)
    if len(named) <= count:
        return named
    affinity = snapshot.vectors.take(named, axis=0) @ user.vector
    nearest: Int64 = named[np.argpartition(-affinity, count - 1)[:count]] if count else named[:0]
    return nearest


def from_lists(snapshot: Snapshot, user: EncodedUser, allowed: Bool, count: int) -> Int64:
    """The best allowed items of the lists of what the user liked; none if the release has no lists."""
    if snapshot.lists is None:
        return np.empty(0, dtype=np.int64)
    scorer = snapshot.towers.score_pairs
    return snapshot.lists.recommend(scorer, snapshot.vectors, user.vector, user.liked, allowed, count)


def fresh(snapshot: Snapshot, table: Table, allowed: Bool, count: int, trials: float) -> Int64:
    """Items that training knew nothing of and that were served fewer than `trials` times: the least served first, of
    equals the newest."""
    newest = snapshot.unknown[: -_FRESH_LOOKED_AT - 1 : -1]
    newest = newest[allowed[newest]]
    served = table.items[newest, SERVED] / table.trial_weight
    order = np.argsort(served, kind="stable")[:count]
    chosen: Int64 = newest[order[served[order] < trials]]
    return chosen


class Query(NamedTuple):
    """What the sources are asked."""

    snapshot: Snapshot
    table: Table
    user: EncodedUser
    allowed: Allowed
    slate_size: int
    fresh_trials: float  # served as often, a new item is fresh no longer


class Source(NamedTuple):
    """One way to find candidates. Names and bits are in the log: they never change, and a bit is never used again."""

    name: str
    bit: int
    find: Callable[[Query, int], Int64]  # positions of allowed items, each once; the int is the limit
    limit: Callable[[ServingSettings], int]


SOURCES = (
    Source(
        "index",
        1 << 0,
        lambda q, n: from_index(q.snapshot, q.user, q.allowed, max(n, q.slate_size)),
        lambda serving: serving.candidates,
    ),
    Source(
        "cluster",
        1 << 1,
        lambda q, n: from_clusters(q.snapshot, q.user, q.allowed.mask, n),
        lambda serving: serving.cluster_candidates,
    ),
    Source(
        "fresh",
        1 << 2,
        lambda q, n: fresh(q.snapshot, q.table, q.allowed.mask, n, q.fresh_trials),
        lambda serving: serving.fresh_candidates,
    ),
    Source(
        "lists",
        1 << 4,
        lambda q, n: from_lists(q.snapshot, q.user, q.allowed.mask, n),
        lambda serving: serving.list_candidates,
    ),
)
NAMED = 1 << 3  # the request named the items itself: no source is asked
POPULAR = 1 << 5  # the models failed
PINNED = 1 << 6  # the request put it there
_NAMES = dict(
    sorted(
        [(NAMED, "named"), (POPULAR, "popular"), (PINNED, "pinned"), *((source.bit, source.name) for source in SOURCES)]
    )
)
SOURCE_NAMES = tuple(_NAMES.values())


def find_all(
    query: Query, serving: ServingSettings, stage: Callable[[str], AbstractContextManager[object]]
) -> tuple[Int64, Uint8]:
    """What all sources find, as merge gives it. stage: entered around each source with its name."""
    found = {}
    for source in SOURCES:
        with stage(source.name):
            found[source.bit] = source.find(query, source.limit(serving))
    return merge(found)


def with_pinned(candidates: Int64, sources: Uint8, pinned: Int64) -> tuple[Int64, Uint8]:
    """Candidates, ascending, and their sources, with those that are pinned among them."""
    new = np.setdiff1d(pinned, candidates)
    united = np.concatenate([candidates, new])
    order = np.argsort(united)
    united, bits = united[order], np.concatenate([sources, np.zeros(len(new), np.uint8)])[order]
    bits[np.searchsorted(united, pinned)] |= PINNED
    return united, bits


def merge(sources: dict[int, Int64]) -> tuple[Int64, Uint8]:
    """The union of candidates by source bit: ascending positions, and the bits of the sources that named each. A source
    names an item once."""
    keys = [found << _BITS | bit for bit, found in sources.items()]
    candidates, bits = _united(np.sort(np.concatenate(keys)))
    return candidates, bits


@numba.njit(cache=True, nogil=True)
def _united(keys):  # type: ignore[no-untyped-def]  # numba infers it
    """Of ascending keys (n,), position << _BITS | source bit."""
    candidates, bits, count = np.empty(len(keys), np.int64), np.empty(len(keys), np.uint8), 0
    for key in keys:
        item, bit = key >> _BITS, np.uint8(key & 255)
        if count and candidates[count - 1] == item:
            bits[count - 1] |= bit
        else:
            candidates[count], bits[count] = item, bit
            count += 1
    return candidates[:count], bits[:count]


@numba.njit(cache=True, nogil=True)
def connected(adjacency, clusters, allowed):  # type: ignore[no-untyped-def]  # numba infers it
    """The allowed items of clusters: each once, ascending."""
    room = 0
    for c in clusters:
        room += adjacency.start[c + 1] - adjacency.start[c]
        at = adjacency.newest[c]
        while at >= 0:
            room, at = room + 1, adjacency.older[at]
    found, count = np.empty(room, np.int64), 0
    for c in clusters:
        for j in adjacency.items[adjacency.start[c] : adjacency.start[c + 1]]:
            if allowed[j]:
                found[count] = j
                count += 1
        at = adjacency.newest[c]
        while at >= 0:
            if allowed[adjacency.appended[at]]:
                found[count] = adjacency.appended[at]
                count += 1
            at = adjacency.older[at]
    found = np.sort(found[:count])
    count = 0
    for j in found:
        if count == 0 or found[count - 1] != j:
            found[count] = j
            count += 1
    return found[:count]


@functools.cache
def source_name(bits: int) -> str:
    """What a set of source bits is called in the log: index, cluster, index+cluster, ..."""
    return "+".join(name for bit, name in _NAMES.items() if bits & bit)
