"""What variants do to items, where the catalogue was parted among them as the users were.

The unit is the item: each variant's part is a random sample of the catalogue, and only its users met it. An item's
fate also hangs on which users these were, so that the variance of a share p of n items is

    p (1 - p) / n  +  (G - 1) / G sum_g (p_-g - mean)^2          g: groups of users, left out one at a time

for items drawn at random and users drawn at random, as in a two-way layout whose common part is counted twice (Owen and
Eckles, "Bootstrapping data arrays of arbitrary order", 2012): too wide rather than too narrow.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import msgspec
import numpy as np
from scipy import stats

from feature_store.arrays import Bool, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment
from feature_store.definitions import DAY_MS
from offline_training.experiment.corpus import MORE_THAN, WITHIN_DAYS
from offline_training.experiment.outcomes import Outcomes
from offline_training.experiment.statistics import Interval

_GROUPS = 20  # of users


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a variant's part of the catalogue. Intervals hold for one look."""

    variant: str
    items: int
    users: int
    shown: Interval  # share of its items that were shown at all
    discoverable: Interval  # share with more than MORE_THAN positive interactions within the last WITHIN_DAYS days
    change: Interval | None  # of the latter against the control, as a share of it; None: of the control, or it is 0


class _Share(NamedTuple):
    value: float
    variance: float


def parts(experiment: Experiment, found: Outcomes, catalogue: Collection[str]) -> list[Part]:
    """By variant. catalogue: the ids of all items that there are, shown or not. Raises InvalidInput if a variant has no
    item, or fewer than _GROUPS users."""
    names = sorted(catalogue)
    number = {item: place for place, item in enumerate(names)}
    part = np.array([experiment.corpus(item) for item in names], dtype=np.int64)
    ids = [] if found.items is None else found.items.to_pylist()
    place = np.array([number.get(item, -1) for item in ids], dtype=np.int64)
    item = place[found.item]
    variant = found.variant[found.user[found.decision]]
    own = (item >= 0) & (part[np.maximum(item, 0)] == variant)
    recent = found.time[found.decision] > found.time.max() - WITHIN_DAYS * DAY_MS
    group = np.argsort(np.argsort(np.array(found.users.to_pylist(), dtype=np.str_))) % _GROUPS
    by_group = group[found.user[found.decision]]
    confidence = 1 - (1 - experiment.confidence) / max(1, len(found.variants) - 1)
    made: list[Part] = []
    control: _Share | None = None
    for k, name in enumerate(found.variants):
        members, users = np.flatnonzero(part == k), int(np.count_nonzero(found.variant == k))
        if not len(members) or users < _GROUPS:
            raise InvalidInput(
                f"Variant {name!r} has {len(members)} items and {users} users; it takes one and {_GROUPS}. Let more "
                f"in: `matchloop experiment ramp {experiment.name}`."
            )
        rows = own & (variant == k)
        row = np.searchsorted(members, item[rows])
        size = len(members)
        shown = _share(row, by_group[rows], np.ones(len(row), np.bool_), size, 0)
        liked = _share(row, by_group[rows], (found.positive & recent)[rows], size, MORE_THAN)
        change = None
        if control is None:
            control = liked
        elif control.value > 0:
            error = math.sqrt(liked.variance + control.variance) / control.value
            change = _interval(liked.value / control.value - 1, error, confidence)
        made.append(
            Part(
                variant=name,
                items=size,
                users=users,
                shown=_interval(shown.value, math.sqrt(shown.variance), confidence),
                discoverable=_interval(liked.value, math.sqrt(liked.variance), confidence),
                change=change,
            )
        )
    return made


def _share(row: Int64, group: Int64, counts: Bool, size: int, more_than: int) -> _Share:
    """The share of `size` items with more than so many rows that count."""
    by_group = np.bincount(group[counts] * size + row[counts], minlength=_GROUPS * size).reshape(_GROUPS, size)
    total = by_group.sum(axis=0)
    value = float(np.mean(total > more_than))
    without = np.mean(total - by_group > more_than, axis=1)
    users = float((_GROUPS - 1) / _GROUPS * np.sum((without - without.mean()) ** 2))
    return _Share(value, value * (1 - value) / size + users)


def _interval(value: float, error: float, confidence: float) -> Interval:
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error
    return Interval(value=value, low=value - half, high=value + half)
