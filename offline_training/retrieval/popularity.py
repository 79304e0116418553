"""How popular items are lately: how often they were chosen unasked, times what they proved where they were shown.

What is shown is liked more often than what is not, so likes of it say how good it is, not how many want it. A count of
them makes what a policy shows popular, because it shows it. They are held against each other within slates instead.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.definitions import DAY_MS
from offline_training.retrieval.dataset import Impressions
from offline_training.retrieval.sequences import Sequences
from offline_training.settings import TrainingSettings

FEW = 0.3  # positives from which on an item's popularity counts
PERIODS = 64  # of training: how popular items are lately is counted anew in each
TRUST = 10.0  # rewards as expected that weigh as much as what came where an item was shown
RECENT_DAYS = 14.0, *(14.0 * 2.0**k for k in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6))  # the first unless one is better
WINDOWS, WINDOW = 4, 0.1  # that days are chosen by: so many of the newest, each such a share of the positives
STANDARD_ERRORS = 2.0  # between users, by which other days must be better
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Popularity:
    """How popular items were in the periods of training: level (I, P), period (n,) that of each event; level_now (I,):
    after the last event.

    A level is ln(1 + n / FEW), where n counts the positives before the period, each exp(-age / recent_days), with ages
    without silences.
    """

    level: Float32
    period: Int64
    level_now: Float32


def without_silences(time: Int64, longest: float) -> Int64:
    """The times (n,) on a clock that stands still in silences: of the time between two events that follow each other,
    no more than `longest` days count. What was imported may be years older than the first live event, and is all that
    there is to know when that comes."""
    order = np.argsort(time, kind="stable")
    passed = np.minimum(np.diff(time[order], prepend=time[order[:1]]), int(longest * DAY_MS))
    found = np.empty_like(time)
    found[order] = np.cumsum(passed)
    return found


def popularity(sequences: Sequences, counted: Bool, items: int, settings: TrainingSettings) -> Popularity:
    """Counts the positives among the events counted (n,), in PERIODS periods of about equally many. All zeros if there
    are none, and without settings.drift: then items do not differ."""
    rows = np.flatnonzero(counted & sequences.positive)
    level = np.zeros((items, PERIODS), np.float32)
    if not settings.drift or not len(rows):
        return Popularity(level[:, :1], np.zeros(len(sequences.item), np.int64), level[:, 0])
    clock = without_silences(sequences.time, settings.recent_days)
    rows = rows[np.argsort(clock[rows], kind="stable")]
    time, item = clock[rows], sequences.item[rows]
    begins = time[np.arange(PERIODS) * len(time) // PERIODS]
    count, since, read = np.zeros(items), begins[0], 0

    def before(moment: int) -> Float32:
        nonlocal count, since, read
        end = int(np.searchsorted(time, moment))
        fresh = np.exp((time[read:end] - moment) / (settings.recent_days * DAY_MS))
        count = count * np.exp((since - moment) / (settings.recent_days * DAY_MS))
        count += np.bincount(item[read:end], fresh, items)
        since, read = moment, end
        found: Float32 = np.log1p(count / FEW).astype(np.float32)
        return found

    for number, moment in enumerate(begins.tolist()):
        level[:, number] = before(moment)
    period = np.maximum(np.searchsorted(begins, clock, side="right") - 1, 0)
    return Popularity(level, period, before(int(time[-1]) + 1))


def choose_days(sequences: Sequences, counted: Bool, items: int) -> float:
    """Of RECENT_DAYS, as many as count for recent: those with which popularity tells best what was wanted next.

    Asked are the newest WINDOWS of the positives counted (n,). At its beginning a window's popularity says that an item
    is wanted in proportion to exp(w level), level as in Popularity, with the w that fits the window best; everybody's
    mean log-likelihood counts once in each window. Others than the first must be better by STANDARD_ERRORS.
    """
    rows = np.flatnonzero(counted & sequences.positive)
    rows = rows[np.argsort(sequences.time[rows], kind="stable")]
    ends = [round(len(rows) * (1 - WINDOW * k)) for k in range(WINDOWS, -1, -1)]
    windows = [rows[begin:end] for begin, end in pairwise(ends) if begin < end]
    if not windows:
        return RECENT_DAYS[0]
    earlier = [rows[sequences.time[rows] < sequences.time[window[0]]] for window in windows]
    told = [
        np.concatenate([_told(sequences, *parts, items, days) for parts in zip(earlier, windows, strict=True)])
        for days in RECENT_DAYS
    ]
    best = int(np.argmax([own.mean() for own in told]))
    gain = told[best] - told[0]
    surely = len(gain) > 1 and gain.mean() > STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain))
    return RECENT_DAYS[best] if surely else RECENT_DAYS[0]


def _told(sequences: Sequences, earlier: Int64, window: Int64, items: int, days: float) -> Float64:
    """(users,) everybody's mean log-likelihood of the rows `window`, by how popular items were after the rows
    `earlier`."""
    clock = without_silences(sequences.time[np.concatenate([earlier, window])], days)
    age = (clock[len(earlier)] - clock[: len(earlier)]) / DAY_MS
    level = np.log1p(np.bincount(sequences.item[earlier], np.exp(-age / days), items) / FEW)
    _, user, events = np.unique(sequences.user[window], return_inverse=True, return_counts=True)
    own = np.bincount(user, level[sequences.item[window]]) / events

    def loss(weight: float) -> float:
        return float(logsumexp(weight * level) - weight * own.mean())

    weight = float(minimize_scalar(loss, bounds=(0.0, _LARGEST_WEIGHT), method="bounded").x)
    told: Float64 = weight * own - logsumexp(weight * level)
    return told


def unasked(sequences: Sequences, impressions: Impressions) -> Bool:
    """(n,) whether an event is of an item that its user had not been shown by then."""
    if not len(impressions):
        return np.ones(len(sequences.item), np.bool_)
    decision, item = impressions.flat
    user = np.array([sequences.index.get(name, -1) for name in impressions.user], np.int64)[decision]
    items = 1 + max(int(item.max(initial=0)), int(sequences.item.max(initial=0)))
    first, at = np.unique(user * items + item, return_index=True)  # impressions are sorted by time
    asked = sequences.user * items + sequences.item
    place = np.minimum(np.searchsorted(first, asked), len(first) - 1)
    own: Bool = (first[place] != asked) | (impressions.time[decision[at[place]]] > sequences.time)
    return own


def beyond_expected(impressions: Impressions, level: Float64, settings: TrainingSettings) -> Float64:
    """(I,) ln of what items earned where they were shown over what their popularity, ln weights `level` (I,), made
    expect of it.

    Of a slate with rewards R in all, item j is expected to earn R exp(level_j) / sum exp(level) (a choice among what is
    shown, McFadden 1974). With r_j and e_j the sums over slates, each counting exp(-age / recent_days), that is
    ln (r_j + TRUST) / (e_j + TRUST), the Gamma-Poisson posterior mean.
    """
    if not len(impressions):
        return np.zeros(len(level))
    decision, item = impressions.flat
    clock = without_silences(impressions.time, settings.recent_days)
    counts = np.exp((clock - clock.max()) / (settings.recent_days * DAY_MS))
    reward = np.clip(np.concatenate(impressions.rewards), 0.0, 1.0)
    weight = np.exp(level[item] - level.max())
    wanted = np.bincount(decision, reward) / np.bincount(decision, weight)
    earned = np.bincount(item, counts[decision] * reward, len(level))
    expected = np.bincount(item, counts[decision] * wanted[decision] * weight, len(level))
    return np.log((earned + TRUST) / (expected + TRUST))
