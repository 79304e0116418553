"""Hard filters. They come before everything else, so that no candidate is retrieved, scored or drawn in vain."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.shown import Shown, ShownItems, day
from online_serving.allowed import Allowed
from online_serving.corpus import Corpus
from online_serving.pipeline.request import Filter, Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot


@contextmanager
def allowed_items(
    snapshot: Snapshot, request: Request, shown: ShownItems, settings: ServingSettings, corpus: Corpus | None = None
) -> Iterator[tuple[Allowed, dict[str, int]]]:
    """Which items may be recommended, for as long as the context is open, and how many items each rule took out of
    those before it. corpus: the user's part of the catalogue, None: all of it."""
    masks = snapshot.masks_at(request.time)
    with masks.lent() as left:
        hits = {"unavailable": snapshot.size - snapshot.masks.count}
        if masks is not snapshot.masks:
            hits["outside_window"] = snapshot.masks.count - masks.count
        if corpus is not None:
            hits["of_another_variant"] = left.leave_out(corpus.excluded(snapshot))
        if settings.excluded_categories:
            excluded = _members(snapshot, Filter(categories=settings.excluded_categories))
            hits["excluded_categories"] = left.leave_out(excluded)
        if settings.remembers_shown:
            seen = _too_soon(snapshot, request, shown, settings)
            if request.pins:  # what is pinned is there each time
                seen = np.setdiff1d(seen, snapshot.positions(item for item, _ in request.pins))
            hits["shown_before"] = left.leave_out(seen)
        if request.exclude != Filter():
            hits["excluded"] = left.leave_out(_members(snapshot, request.exclude))
        if request.before.packed:
            hits["earlier_pages"] = left.leave_out(snapshot.positions(request.before))
        named: Int64 | None = None  # if the request says what it wants
        if request.where is not None:
            matches = snapshot.matching(request.where)
            if matches.described:
                named = left.still(matches.positions)
                hits["filtered"] = left.allowed.left - len(named)
            else:
                hits["filtered"] = left.leave_out(matches.positions)
        if request.only is not None:
            before = left.allowed.left if named is None else len(named)
            wanted = left.among(_members(snapshot, request.only))
            named = wanted if named is None else np.intersect1d(named, wanted, assume_unique=True)
            hits["not_in_only"] = before - len(named)
        if named is None:
            yield left.allowed, hits
            return
        with masks.only(named) as allowed:
            yield allowed, hits


def _too_soon(snapshot: Snapshot, request: Request, shown: ShownItems, settings: ServingSettings) -> Int64:
    """Positions of what the user was shown before, and not long enough ago to be shown it again."""
    surface = settings.surfaces.get(request.surface)
    if surface is not None and surface.repeat_days is not None:
        return _shown_within(surface.repeat_days, snapshot, request, shown)
    if not settings.category_repeat_days:
        return _shown_within(settings.repeat_days, snapshot, request, shown)

    def interval(categories: Iterable[str]) -> int | None:
        own = [settings.category_repeat_days[one] for one in categories if one in settings.category_repeat_days]
        return max(own) if own else settings.repeat_days

    hidden = []
    for days in {settings.repeat_days, *settings.category_repeat_days.values()}:
        found = _shown_within(days, snapshot, request, shown)
        of_these = [interval(categories) == days for categories in snapshot.categories_of(found)]
        hidden.append(found[np.array(of_these, dtype=bool)])
    return np.concatenate(hidden)


def _shown_within(days: int | None, snapshot: Snapshot, request: Request, shown: ShownItems) -> Int64:
    """Positions of what was shown in the last days, today included; None: ever. So is what has no time."""
    if days == 0:
        return np.empty(0, dtype=np.int64)
    if days is not None and request.time is not None and isinstance(shown, Shown):
        shown = shown.since(day(request.time) - days + 1)
    return snapshot.positions(shown)


def boosts(snapshot: Snapshot, candidates: Int64, request: Request, settings: ServingSettings) -> Float64:
    """(n,) by how much candidates (n,), ascending positions, come earlier: the product over their categories, and over
    what the request says."""
    factors = np.ones(len(candidates))
    for category, factor in settings.category_boosts.items():
        members = snapshot.categories.get(category)
        if members is not None:
            factors[np.isin(candidates, members, assume_unique=True)] *= factor
    for where, boost in request.boosts:
        factor = boost.at(request.time)
        if factor != 1.0:
            factors[snapshot.matching(where).of(candidates)] *= factor
    return factors


def boosted(estimates: Float64, factors: Float64) -> Float64:
    """(..., n) estimates of a reward, multiplied by the factors (n,), or divided where they are below zero: a factor
    above 1 raises those, too."""
    return np.where(estimates < 0, estimates / factors, estimates * factors)


def _members(snapshot: Snapshot, wanted: Filter) -> Int64:
    nothing = np.empty(0, dtype=np.int64)
    groups = [snapshot.categories.get(category, nothing) for category in wanted.categories]
    return np.concatenate([snapshot.positions(wanted.items), *groups])
