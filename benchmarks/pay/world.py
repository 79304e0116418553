"""A world: who comes, what they would like, what enters when, and what was known before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.retrieval.datasets import Dataset
from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.contracts.catalogue import Item
from offline_training.evaluation.baselines import Interactions
from offline_training.simulation.world import arrival_fractions, withheld_items

TURNS, SLATE = 19, 10
WITHHELD_SHARE = 0.15  # of the items
ARRIVALS_UNTIL = 0.6  # of the turns
_ALWAYS = (1.0,) * SLATE


class Newcomer(NamedTuple):
    """An item that training knew nothing of. It enters before this turn."""

    item: Item
    turn: int


@dataclass(frozen=True, eq=False)
class World:
    """Every visitor comes `turns` times and is shown a slate of items that they have not met.

    A turn is as many visits as there are visitors. Items are numbered: those that training knows, then the newcomers in
    the order in which they enter.
    """

    name: str
    past: Dataset  # what is trained on: the log until `moment`, and everybody; its items are those that training knows
    moment: int  # ms: when the release is made
    visitors: Int64  # (V,) rows of past.profiles
    newcomers: tuple[Newcomer, ...]
    likes: Float32  # (tastes, V, items) probability that the visitor likes the item if shown, under each set of tastes
    tastes: Int64  # (turns,) which set holds
    slate: int = SLATE
    delay: int = 0  # visits that pass between a visit and its feedback
    seen: tuple[float, ...] = _ALWAYS  # (slate,) chance that a visitor looks at a place; without that nothing is liked
    reports_views: bool = True  # feedback says what was looked at
    times: Float64 | None = None  # (V, turns) when visits happen; None: everybody comes once a turn, in a drawn order

    @property
    def turns(self) -> int:
        """How often everybody comes."""
        return len(self.tastes)

    @property
    def items(self) -> list[Item]:
        """By number."""
        return [*self.past.items, *(new.item for new in self.newcomers)]

    @property
    def returning(self) -> Bool:
        """(V,) whether training knew what the visitor did."""
        events = np.bincount(self.past.log.user, minlength=self.past.log.users)
        known: Bool = events[self.visitors] > 0
        return known


def by_time(
    name: str,
    dataset: Dataset,
    moment: int,
    *,
    trained_until: int | None = None,
    withheld: float = WITHHELD_SHARE,
    until: float = ARRIVALS_UNTIL,
    most: int | None = None,
) -> World:
    """Real people after a moment (ms): what they came to like is what they like.

    Training knows what happened before the moment, or before trained_until, of all items but a `withheld` share, which
    enter evenly over the first `until` of the turns. most: so many of the people are drawn; None: everybody comes.
    """
    log = dataset.log
    names = [item.id for item in dataset.items]
    entering = withheld_items(names, withheld, 0)
    number = {item: row for row, item in enumerate(names)}
    old = np.setdiff1d(np.arange(len(names)), [number[item] for item in entering])
    order = np.concatenate([old, [number[item] for item in entering]]).astype(np.int64)
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))

    later = (log.time >= moment) & dataset.positive
    visitors = np.unique(log.user[later])
    if most is not None and len(visitors) > most:
        visitors = np.sort(np.random.default_rng(0).permutation(visitors)[:most])
    likes = np.zeros((len(visitors), len(names)), np.float32)
    later &= np.isin(log.user, visitors)
    likes[np.searchsorted(visitors, log.user[later]), place[log.item[later]]] = 1.0

    kept = np.flatnonzero((log.time < (trained_until or moment)) & (place[log.item] < len(old)))
    past = log.take(kept)
    return World(
        name=name,
        past=Dataset(
            log=Interactions(past.user, place[past.item], past.time, log.users, len(old)),
            kinds=dataset.kinds[kept],
            positive=dataset.positive[kept],
            items=[dataset.items[row] for row in old],
            profiles=dataset.profiles,
        ),
        moment=moment,
        visitors=visitors,
        newcomers=arriving([dataset.items[number[item]] for item in entering], until),
        likes=likes[None],
        tastes=np.zeros(TURNS, np.int64),
    )


def arriving(items: Sequence[Item], until: float = ARRIVALS_UNTIL) -> tuple[Newcomer, ...]:
    """Newcomers that enter in this order, evenly over the first `until` of the turns."""
    turns = [int(np.ceil(share * TURNS)) for share in arrival_fractions(len(items), until)]
    return tuple(Newcomer(item, turn) for item, turn in zip(items, turns, strict=True))


def schedule(world: World, seed: int) -> Int64:
    """(turns * V,) who comes, visit by visit: the same for all arms."""
    order = np.random.default_rng([seed, 1]).permutation(len(world.visitors))
    if world.times is None:
        return np.tile(order, world.turns)
    return order[np.argsort(world.times[order].ravel(), kind="stable") // world.turns]


def opinions(world: World, seed: int) -> Bool:
    """(tastes, V, items) what everybody likes: the same for all arms. Who likes something under one set of tastes likes
    it under another that makes it no less likely."""
    drawn: Float64 = np.random.default_rng([seed, 0]).random(world.likes.shape[1:])
    liked: Bool = drawn < world.likes
    return liked
