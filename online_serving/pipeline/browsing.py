"""Items for nobody in particular: like another item, or popular. They are looked up, and no decision is made."""

from collections.abc import Iterator

import numpy as np

from feature_store.arrays import Int64
from feature_store.user_features import NOBODY
from online_serving.allowed import Allowed
from online_serving.pipeline.request import Request
from online_serving.pipeline.rules import allowed_items
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot, by_popularity

_MOST_SORTED = 10_000
_FIRST_LOOK = 1_000  # of the most popular; then ten times as many, and so on


def similar(snapshot: Snapshot, position: int, request: Request, settings: ServingSettings) -> list[str]:
    """At most `slate_size` allowed items like the one at the position, which is to be excluded: those that people went
    to from it (item lists), best first, and then the nearest by vector."""
    with allowed_items(snapshot, request, NOBODY.shown, settings) as (allowed, _):
        found = _listed(snapshot, position, allowed)
        if len(found) < request.slate_size:
            near = snapshot.index.nearest(
                snapshot.vectors[position], snapshot.vectors, allowed, request.slate_size + len(found)
            )
            found = np.concatenate([found, near[~np.isin(near, found)]])
    return snapshot.graph.ids(found[: request.slate_size].tolist())


def popular(snapshot: Snapshot, request: Request, settings: ServingSettings) -> list[str]:
    """At most `slate_size` allowed items: those that most people liked of late first, as the release knows it, and then
    what came after the release, oldest first."""
    with allowed_items(snapshot, request, NOBODY.shown, settings) as (allowed, _):
        if allowed.few is not None and len(allowed.few) <= _MOST_SORTED:
            few = allowed.few[by_popularity(snapshot.item_features[allowed.few])]
            return snapshot.graph.ids(few[: request.slate_size].tolist())
        found = np.empty(0, dtype=np.int64)
        for looked_at in _more_and_more(snapshot):
            found = looked_at[allowed.mask[looked_at]][: request.slate_size]
            if len(found) == request.slate_size:
                break
    return snapshot.graph.ids(found.tolist())


def _listed(snapshot: Snapshot, position: int, allowed: Allowed) -> Int64:
    if snapshot.lists is None or position >= len(snapshot.lists):
        return np.empty(0, dtype=np.int64)
    listed = snapshot.lists.items[position].astype(np.int64)
    listed = listed[listed >= 0]
    kept: Int64 = listed[allowed.mask[listed]]
    return kept


def _more_and_more(snapshot: Snapshot) -> Iterator[Int64]:
    """The most popular items: some, more, all; then those that came after the release as well."""
    count, known = _FIRST_LOOK, snapshot.popular
    while count < len(known):
        yield known[:count]
        count *= 10
    yield np.concatenate([known, np.arange(len(known), snapshot.size)])
