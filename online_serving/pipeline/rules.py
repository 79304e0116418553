"""Hard filters. They come before everything else, so that no candidate is retrieved, scored or drawn in vain."""

import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from online_serving.pipeline.request import Filter, Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot


def allowed_items(
    snapshot: Snapshot, request: Request, shown: frozenset[str], settings: ServingSettings
) -> tuple[Bool, dict[str, int]]:
    """(size,) which items may be recommended, and how many items each rule took out of those before it."""
    allowed = snapshot.available.copy()
    left = int(np.count_nonzero(allowed))
    hits = {"unavailable": snapshot.size - left}

    def count(rule: str) -> None:
        nonlocal left
        now = int(np.count_nonzero(allowed))
        hits[rule] = left - now
        left = now

    if settings.excluded_categories:
        allowed[_members(snapshot, Filter(categories=settings.excluded_categories))] = False
        count("excluded_categories")
    if not settings.repeat_shown:
        allowed[snapshot.positions(shown)] = False
        count("shown_before")
    if request.exclude != Filter():
        allowed[_members(snapshot, request.exclude)] = False
        count("excluded")
    if request.only is not None:
        named = np.zeros(snapshot.size, dtype=np.bool_)
        named[_members(snapshot, request.only)] = True
        allowed &= named
        count("not_in_only")
    return allowed, hits


def boosts(snapshot: Snapshot, candidates: Int64, settings: ServingSettings) -> Float64:
    """(n,) what the estimates of candidates (n,), ascending positions, are multiplied by: the product over their
    categories."""
    factors = np.ones(len(candidates))
    for category, boost in settings.category_boosts.items():
        members = snapshot.categories.get(category)
        if members is not None:
            factors[np.isin(candidates, members, assume_unique=True)] *= boost
    return factors


def _members(snapshot: Snapshot, wanted: Filter) -> Int64:
    nothing = np.empty(0, dtype=np.int64)
    groups = [snapshot.categories.get(category, nothing) for category in wanted.categories]
    return np.concatenate([snapshot.positions(wanted.items), *groups])
