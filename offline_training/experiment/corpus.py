"""What a variant does to the corpus: how many items it shows, and how many it lets people find.

These are no means over users, so that their intervals are by the jackknife over groups of users. And they grow with
traffic: each variant counts as many users as the smallest one has.
"""

import msgspec
import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.definitions import DAY_MS
from offline_training.experiment.outcomes import Outcomes
from offline_training.experiment.statistics import Interval

MORE_THAN = 3  # positive interactions, X
WITHIN_DAYS = 7.0  # the last of the experiment, Y
_GROUPS = 20


class CorpusFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's corpus, among as many users as the smallest variant has."""

    variant: str
    users: int
    shown: Interval  # items shown at least once
    discoverable: Interval  # DC@X,Y: items with more than X positive interactions within the last Y days


def corpus(found: Outcomes, more_than: int = MORE_THAN, within_days: float = WITHIN_DAYS) -> list[CorpusFigure]:
    """DC@X,Y is Su et al., "Long-Term Value of Exploration" (WSDM 2024), section 3.2. Variants that fewer than _GROUPS
    users met are left out; the users that count are the first by key, which is at random."""
    counts = np.bincount(found.variant, minlength=len(found.variants))
    size = min((int(count) for count in counts if count >= _GROUPS), default=0)
    order = np.argsort(np.array(found.users.to_pylist(), dtype=np.str_))
    recent = found.time[found.decision] > found.time.max() - within_days * DAY_MS
    user = found.user[found.decision]
    figures = []
    for k, name in enumerate(found.variants):
        if counts[k] < _GROUPS:
            continue
        chosen = order[found.variant[order] == k][:size]
        group = np.full(len(found.users), -1, dtype=np.int64)
        group[chosen] = np.arange(size) % _GROUPS
        own = group[user] >= 0
        liked = own & found.positive & recent
        figures.append(
            CorpusFigure(
                variant=name,
                users=size,
                shown=_jackknife(found.item, group[user], own, 0),
                discoverable=_jackknife(found.item, group[user], liked, more_than),
            )
        )
    return figures


def _jackknife(item: Int64, group: Int64, rows: Bool, more_than: int) -> Interval:
    """Items with more than so many rows, and a 95 % interval from leaving out one group at a time: variance
    (G - 1) / G sum (theta_g - mean)^2. It errs to the wide side (Efron and Stein, 1981): up to twice for counts."""
    items, groups = item[rows], group[rows]
    width = int(item.max(initial=0)) + 1
    by_group = np.bincount(groups * width + items, minlength=_GROUPS * width).reshape(_GROUPS, width)
    total = by_group.sum(axis=0)
    value = float(np.count_nonzero(total > more_than))
    without = np.count_nonzero(total - by_group > more_than, axis=1)
    error = float(np.sqrt((_GROUPS - 1) / _GROUPS * np.sum((without - without.mean()) ** 2)))
    return Interval(value=value, low=value - 1.96 * error, high=value + 1.96 * error)
