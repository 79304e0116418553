"""Candidates: a few hundred items out of the whole catalogue, from several sources at once.

A new source is a function, an entry in SOURCES and the setting that limits it.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.sums import SERVED
from online_serving.pipeline.features import EncodedUser
from online_serving.pipeline.request import Uint8
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import Table

_FRESH_LOOKED_AT = 10_000  # newest unknown items among which those with the fewest trials are sought


def from_index(snapshot: Snapshot, user: EncodedUser, allowed: Bool, count: int) -> Int64:
    """The nearest allowed items of the user vector."""
    return snapshot.index.nearest(user.vector, snapshot.vectors, allowed, count)


def from_clusters(snapshot: Snapshot, user: EncodedUser, allowed: Bool, count: int) -> Int64:
    """Allowed items connected to the user's clusters; the nearest to the user if there are more than `count`."""
    named = np.zeros(len(allowed), dtype=np.bool_)  # a mask: np.unique would take several times as long
    named[np.concatenate([snapshot.graph.items_of(c) for c in user.clusters])] = True
    connected = np.flatnonzero(named & allowed)
    if len(connected) <= count:
        return connected
    affinity = snapshot.vectors[connected] @ user.vector
    nearest: Int64 = connected[np.argpartition(-affinity, count - 1)[:count]] if count else connected[:0]
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
    allowed: Bool  # (items,)
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
        lambda q, n: from_clusters(q.snapshot, q.user, q.allowed, n),
        lambda serving: serving.cluster_candidates,
    ),
    Source(
        "fresh",
        1 << 2,
        lambda q, n: fresh(q.snapshot, q.table, q.allowed, n, q.fresh_trials),
        lambda serving: serving.fresh_candidates,
    ),
    Source(
        "lists",
        1 << 4,
        lambda q, n: from_lists(q.snapshot, q.user, q.allowed, n),
        lambda serving: serving.list_candidates,
    ),
)
NAMED = 1 << 3  # the request named the items itself: no source is asked
_NAMES = dict(sorted([(NAMED, "named"), *((source.bit, source.name) for source in SOURCES)]))
SOURCE_NAMES = tuple(_NAMES.values())


def find_all(
    query: Query, serving: ServingSettings, stage: Callable[[str], AbstractContextManager[object]]
) -> tuple[Int64, Uint8]:
    """What all sources find, as merge gives it. stage: entered around each source with its name."""
    found = {}
    for source in SOURCES:
        with stage(source.name):
            found[source.bit] = source.find(query, source.limit(serving))
    return merge(found, query.snapshot.size)


def merge(sources: dict[int, Int64], size: int) -> tuple[Int64, Uint8]:
    """The union of candidates by source bit, out of `size` items: ascending positions, and the bits of the sources that
    named each. A source names an item once."""
    bits = np.zeros(size, dtype=np.uint8)
    for bit, found in sources.items():
        bits[found] |= np.uint8(bit)
    candidates = np.flatnonzero(bits != 0)
    return candidates, bits[candidates]


@functools.cache
def source_name(bits: int) -> str:
    """What a set of source bits is called in the log: index, cluster, index+cluster, ..."""
    return "+".join(name for bit, name in _NAMES.items() if bits & bit)
