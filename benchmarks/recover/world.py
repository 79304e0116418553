"""People whose wish for an item is gone once they were shown it, and comes back with time: recovering rewards
(Simchi-Levi, Zheng and Zhu, https://arxiv.org/abs/2106.14813). The truth is known."""

import tempfile
from pathlib import Path

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.definitions import DAY_MS
from feature_store.shown import ENTRY_BYTES, Shown, pack
from infra.benchmarks.small_release import build_release, items
from online_serving.pipeline.request import Request
from online_serving.pipeline.rules import allowed_items
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot

ITEMS, USERS, DAYS, SLATE = 120, 300, 60, 5
VISITS = 0.4  # the share of days on which a user comes
FIRST_DAY = 20_000
SHOWN_KEPT = 500  # redis.shown_kept
PRIOR_TRIALS, PRIOR_RATE = 10.0, 0.2  # what is believed of an item before anybody was shown it
RECOVERING = {"drama": 1.0, "comedy": 5.0, "space": 20.0}  # days after which 63 % of what was lost is back
DROP = 0.9  # the share of its reward that an item loses when it is shown


class World:
    """Items with rates of their own, users with tastes for categories, and when they come."""

    def __init__(self, seed: int, drop: float = DROP) -> None:
        """drop: the share of its reward that an item loses for a user when it is shown to them."""
        rng = np.random.default_rng([seed, 15])
        catalogue = items(ITEMS)
        with tempfile.TemporaryDirectory() as folder:
            self.snapshot = Snapshot.load(Path(folder), build_release(Path(folder), catalogue=catalogue), catalogue)
        category = [item.categories[0] for item in catalogue]
        number: Int64 = np.array([list(RECOVERING).index(name) for name in category])
        self.seed, self._drop = seed, drop
        self._recovery: Float64 = np.array([RECOVERING[name] for name in category])
        self._rate = rng.beta(2, 8, ITEMS)
        self._taste = rng.lognormal(0, 0.4, (USERS, len(RECOVERING)))[:, number]
        self._comes = rng.random((USERS, DAYS)) < VISITS
        self._order = self.snapshot.positions([item.id for item in catalogue])

    def chances(self, user: int, idle: Float64) -> Float64:
        """(items,) that the user likes each; idle: (items,) days since it was shown to them, infinite: never."""
        kept = 1 - self._drop * np.exp(-idle / self._recovery)
        chances: Float64 = np.minimum(self._rate * self._taste[user], 1) * kept
        return chances

    def play(self, rules: ServingSettings | None) -> Float64:
        """(users,) likes a visit that are expected of what each user was shown. What is shown first is what is thought
        best: a user's taste, which is known, times the item's rate, which is learnt from all users, among what the
        rules allow. None: what is best for the user that day, which nobody could know."""
        names = self.snapshot.graph.ids(self._order.tolist())
        idle = np.full((USERS, ITEMS), np.inf)
        shown = [b""] * USERS
        trials, likes = np.zeros(ITEMS), np.zeros(ITEMS)
        earned = np.zeros(USERS)
        for today in range(DAYS):
            time = (FIRST_DAY + today) * DAY_MS
            for user in np.flatnonzero(self._comes[:, today]).tolist():
                chances = self.chances(user, idle[user])
                if rules is None:
                    slate = np.argsort(-chances)[:SLATE]
                else:
                    rate = (likes + PRIOR_TRIALS * PRIOR_RATE) / (trials + PRIOR_TRIALS)
                    estimate = rate * self._taste[user]
                    request = Request(SLATE, time=time)
                    with allowed_items(self.snapshot, request, Shown(shown[user]), rules) as (allowed, _):
                        estimate[~allowed.mask[self._order]] = -1.0
                    slate = np.argsort(-estimate)[:SLATE]
                    slate = slate[estimate[slate] >= 0]
                luck = np.random.default_rng([self.seed, user, today]).random(ITEMS)
                trials[slate] += 1
                likes[slate] += luck[slate] < chances[slate]
                earned[user] += chances[slate].sum()
                idle[user, slate] = 0
                shown[user] = (shown[user] + pack((names[j], time) for j in slate))[-SHOWN_KEPT * ENTRY_BYTES :]
            idle += 1
        visits: Float64 = earned / np.maximum(self._comes.sum(axis=1), 1)
        return visits
