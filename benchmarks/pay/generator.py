"""A world whose truth is known everywhere and is of another kind than what our models assume.

People have up to three interests, places on a map, and one of them is enough: what somebody likes is the best of
several bumps, not an inner product. Some people turn from what is popular, others follow it. Items differ in quality,
and their descriptions tell their place only roughly.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.pay.world import TURNS, WITHHELD_SHARE, World, arriving
from benchmarks.retrieval.datasets import Dataset
from feature_store.arrays import Float64, Int64
from feature_store.contracts.catalogue import Item
from feature_store.definitions import DAY_MS
from offline_training.evaluation.baselines import Interactions

USERS, ITEMS, VISITORS = 1_200, 1_000, 240
RETURNING = 0.4  # of the visitors
MEETINGS = 50  # items that a user meets before the moment, on average
DAYS = 120  # of the past
_INTERESTS = 3
_REACH = 0.13  # of an interest, on a map of side 1 whose edges meet
_BEST = 0.6  # nobody likes anything more surely
_GRID = 5  # a description names one of 5 x 5 districts
_MISNAMED = 0.2  # of the items


class Truth(NamedTuple):
    """likes (U, I): probability that a user likes an item. fame (I,): how often it is met. district (I,): as its
    description has it."""

    likes: Float64
    fame: Float64
    district: Int64


def truth(seed: int) -> Truth:
    """Draws people, items and what these are to them."""
    rng = np.random.default_rng([seed, 11])
    place, quality = rng.random((ITEMS, 2)), rng.beta(2, 4, ITEMS)
    interests = rng.random((USERS, _INTERESTS, 2))
    strength = rng.uniform(0.3, 1.0, (USERS, _INTERESTS)) * (rng.random((USERS, _INTERESTS)) < (1.0, 0.7, 0.4))
    apart = np.abs(interests[:, :, None] - place)
    apart = np.minimum(apart, 1 - apart)  # the map is a torus: there is no centre to be near to
    appeal = (strength[:, :, None] * np.exp(-(apart**2).sum(axis=3) / (2 * _REACH**2))).max(axis=1)
    fame = quality * rng.lognormal(0, 1, ITEMS)
    famous = np.argsort(np.argsort(fame)) / ITEMS
    follows = rng.uniform(-0.6, 0.6, USERS)[:, None]
    likes = _BEST * np.minimum(1, (0.15 + appeal) * np.sqrt(quality) * (1 + follows * (2 * famous - 1)))
    district = (place * _GRID).astype(np.int64) @ np.array([_GRID, 1])
    lost = rng.random(ITEMS) < _MISNAMED
    district[lost] = rng.integers(0, _GRID**2, int(lost.sum()))
    return Truth(likes, fame, district)


def generated(name: str, seed: int) -> World:
    """A past in which people met what is famous, and visitors after it; the last items are the new ones."""
    known, rng = truth(seed), np.random.default_rng([seed, 12])
    old = ITEMS - int(WITHHELD_SHARE * ITEMS)
    strangers = np.arange(int(VISITORS * (1 - RETURNING)))  # users that the past knows nothing of
    met = rng.random((USERS, old)) < MEETINGS * known.fame[:old] / known.fame[:old].sum()
    met[strangers] = False
    user, item = np.nonzero(met)
    begins = rng.uniform(0, DAYS * 0.8, USERS)
    time = (DAY_MS * np.minimum(begins[user] + rng.exponential(10, len(user)), DAYS)).astype(np.int64)
    order = np.lexsort((item, time, user))
    user, item, time = user[order], item[order], time[order]
    liked = rng.random(len(user)) < known.likes[user, item]
    visitors = np.arange(VISITORS)
    likes = known.likes[:VISITORS].astype(np.float32)
    items = [
        Item(id=f"item{number:04d}", categories=[f"district{known.district[number]}"], attributes={"side": number % 2})
        for number in range(ITEMS)
    ]
    return World(
        name=name,
        past=Dataset(
            log=Interactions(user, item, time, USERS, old),
            kinds=np.where(liked, "rating+", "rating-"),
            positive=liked,
            items=items[:old],
            profiles=[[] for _ in range(USERS)],
        ),
        moment=DAYS * DAY_MS + 1,
        visitors=visitors,
        newcomers=arriving(items[old:]),
        likes=likes[None],
        tastes=np.zeros(TURNS, np.int64),
    )
