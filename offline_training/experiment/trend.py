"""What each variant earned, in all and window by window, with intervals; and what became of new items.

No experiment is needed: whatever the log calls a decision's variants is one. Windows are equally long and are clustered
by user like the whole (statistics.ratio); the newest still get feedback.
"""

import itertools
from collections.abc import Collection

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrays import Bool, Int64
from feature_store.contracts.experiments import assigned_in
from offline_training.experiment.outcomes import Outcomes
from offline_training.experiment.statistics import PER, Interval, interval, ratio

CONFIDENCE = 0.95
THRESHOLDS = (1, 3, 5)  # positive impressions from which on a new item counts as discovered
_MINUTE_MS = 60_000
_LENGTHS = [n * _MINUTE_MS for n in (1, 5, 15, 30, 60, 120, 360, 720, 1440, 10080)]


class Earned(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant earned between two times (ms since the epoch), the later one exclusive."""

    since: int
    until: int
    users: int
    decisions: int
    impressions: int
    per_thousand: Interval | None  # reward per 1,000 impressions; None: nothing was shown


class VariantTrend(msgspec.Struct, frozen=True, kw_only=True):
    """One variant, as the log calls it."""

    variant: str
    whole: Earned
    windows: list[Earned]


class NewItems(msgspec.Struct, frozen=True, kw_only=True):
    """What became of items that came into the catalogue meanwhile."""

    items: int
    shown: int
    discovered: dict[int, int]  # by number of positive impressions, as DC@N counts them


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of a stretch of time."""

    since: int
    until: int
    variants: list[VariantTrend]  # by number of decisions, the most first
    new_items: NewItems


def trend(found: Outcomes, new: Collection[str], until: int, windows: int = 12) -> Trend:
    """Of all decisions found, testers aside, until a time (ms since the epoch), in about so many windows."""
    labels = (pa.array([], pa.string()) if found.labels is None else found.labels).dictionary_encode()
    label, names = labels.indices.to_numpy(), labels.dictionary.to_pylist()
    edges = _edges(int(found.time.min(initial=until)), until, windows)
    variants = [
        VariantTrend(
            variant=name,
            whole=_earned(found, label == number, edges[0], edges[-1]),
            windows=[
                _earned(found, (label == number) & (start <= found.time) & (found.time < end), start, end)
                for start, end in itertools.pairwise(edges)
            ],
        )
        for number, name in enumerate(names)
        if not any(one.forced for one in assigned_in(name))
    ]
    return Trend(
        since=edges[0],
        until=edges[-1],
        variants=sorted(variants, key=lambda one: -one.whole.decisions),
        new_items=_new_items(found, new),
    )


def _edges(first: int, until: int, windows: int) -> list[int]:
    """Round times from one at or before the first to one after the last."""
    length = next((one for one in _LENGTHS if one * windows >= until - first), _LENGTHS[-1])
    begin = first // length * length
    return list(range(begin, until + length, length))


def _earned(found: Outcomes, made: Bool, since: int, until: int) -> Earned:
    """made (d,): the decisions."""
    shown = made[found.decision]
    user, reward = found.user[found.decision[shown]], found.reward[shown]
    users, code = np.unique(user, return_inverse=True)
    earned = None
    if len(user):
        rewards, impressions = np.bincount(code, weights=reward * PER), np.bincount(code)
        estimate = ratio(rewards.astype(np.float64), impressions.astype(np.float64))
        earned = interval(estimate, CONFIDENCE)
    return Earned(
        since=since,
        until=until,
        users=len(users),
        decisions=int(np.count_nonzero(made)),
        impressions=len(user),
        per_thousand=earned,
    )


def _new_items(found: Outcomes, new: Collection[str]) -> NewItems:
    ids = pa.array([], pa.string()) if found.items is None else found.items
    is_new: Bool = pc.is_in(ids, pa.array(sorted(new), pa.string())).to_numpy(zero_copy_only=False)
    positives: Int64 = np.bincount(found.item[found.positive], minlength=len(ids))[is_new]
    return NewItems(
        items=len(new),
        shown=int(np.count_nonzero(is_new)),
        discovered={n: int(np.count_nonzero(positives >= n)) for n in THRESHOLDS},
    )
