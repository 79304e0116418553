"""What holds among the items of a slate: from a request's caps, pins and diversity to what the slate is drawn by."""

from collections.abc import Sequence

import numpy as np

from feature_store.arrays import Float64, Int64
from online_serving.allowed import Allowed
from online_serving.expressions import CATEGORIES
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from streaming.bandit.exploration import Exploration
from streaming.bandit.ruled_slates import SlateRules, choose_ruled_slate


def pinned_items(snapshot: Snapshot, request: Request, allowed: Allowed) -> dict[int, int]:
    """By position in the snapshot, the wanted places of what is pinned and allowed, in order of places."""
    found = {}
    for item, place in sorted(request.pins, key=lambda pin: pin[1]):
        position = snapshot.position(item)
        if position is not None and allowed.mask[position]:
            found[position] = place
    return found


def slate_rules(
    snapshot: Snapshot, request: Request, candidates: Int64, pinned: Sequence[int] = ()
) -> SlateRules | None:
    """The rules of a request over candidates (n,), ascending positions; None: it has none. pinned: positions, which are
    among the candidates."""
    if not (request.caps or request.diversity or pinned):
        return None
    n, room = len(candidates), [np.empty(0, np.int64)]
    owners, groups, used = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for name, most in request.caps:
        owner, group = _groups(snapshot, name, candidates)
        count = int(group.max(initial=-1)) + 1
        owners.append(owner)
        groups.append(used + group)
        room.append(np.full(count, most))
        used += count
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return SlateRules(
        pinned=np.searchsorted(candidates, np.array(pinned, np.int64)),
        start=np.searchsorted(owner[order], np.arange(n + 1)),
        groups=np.concatenate(groups)[order],
        room=np.concatenate(room),
        diversity=request.diversity,
        vectors=snapshot.vectors[candidates] if request.diversity else np.empty((n, 0), np.float32),
    )


def fitted(places: Sequence[int], items: int) -> list[int]:
    """Distinct places, ascending, that lie within so many items: as wanted, or as near to the end as they can."""
    last = items - len(places) + 1
    return [min(place, last + number) for number, place in enumerate(places)]


def best_under(rules: SlateRules | None, values: Float64, count: int) -> Int64:
    """The best candidates by their values (n,), without any chance in it."""
    if rules is None:
        best: Int64 = np.argsort(-values, kind="stable")[:count]
        return best
    nothing, greedy = np.zeros(len(values)), Exploration(top_k=1, share=0.0)
    return choose_ruled_slate(values, nothing, count, greedy, rules, np.random.default_rng(0)).shown


def _groups(snapshot: Snapshot, name: str, candidates: Int64) -> tuple[Int64, Int64]:
    """Which candidates (m,), as numbers among them, are in which groups (m,)."""
    if name in CATEGORIES:
        lists = snapshot.categories_of(candidates)
        owner = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
        numbers: dict[str, int] = {}
        group = [numbers.setdefault(category, len(numbers)) for one in lists for category in one]
        return owner, np.array(group, np.int64)
    alike = snapshot.attributes.alike(name, candidates)
    owner = np.flatnonzero(alike >= 0)
    return owner, alike[owner]
