"""The world that simulated visitors come from: what real people liked after the training data ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from feature_store.contracts.errors import InvalidInput
from feature_store.lake_path import LakePath
from offline_training.data.lake import positives_from


@dataclass(slots=True)
class Visitor:
    """One user who comes back as long as there is something left that they would like."""

    user: str
    left: set[str]  # liked items that they were not shown yet

    def see(self, items: Iterable[str]) -> list[float]:
        """The reward of each shown item, 1 or 0. What was seen once is not left any more."""
        rewards = []
        for item in items:
            rewards.append(1.0 if item in self.left else 0.0)
            self.left.discard(item)
        return rewards

    @property
    def done(self) -> bool:
        return not self.left


@dataclass(frozen=True, slots=True)
class World:
    """Who would like what.

    A reward is 1 for an item with which the user had a positive interaction in the held-out time, else 0. This is a
    lower bound of what a recommender earns: people did not rate everything they would have liked, so a good
    recommendation that its user never rated counts as a failure.
    """

    likes: Mapping[str, frozenset[str]] = field(repr=False)  # user id -> items
    twins: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)  # user id -> ids to come under instead

    @classmethod
    def from_lake(
        cls, lake: LakePath, user_ids: Mapping[str, str], split_ms: int, positive_value: Mapping[str, float]
    ) -> Self:
        """Reads the interactions that were imported into the lake.

        user_ids: user key -> id, for the lake holds keys and the API is called with ids; users without an id are left
        out. split_ms: only interactions from this time on count, ms since the epoch. positive_value: from which value
        on an interaction of a type is positive; types not named are at any value above 0. Of several interactions of
        one type with an item the newest counts. Raises InvalidInput if nobody liked anything.
        """
        later = positives_from(lake, split_ms, positive_value)
        likes = {user_ids[user]: liked for user, liked in later.items() if user in user_ids}
        if not likes:
            raise InvalidInput(
                f"Nobody in {lake} has a positive interaction from {split_ms} ms on: there are no tastes to simulate. "
                "Split earlier, or lower training.positive_value."
            )
        return cls(dict(sorted(likes.items())))

    def with_twins(self, twins: Mapping[str, Sequence[str]]) -> Self:
        """The same tastes of users who come under other ids: user id -> ids, of as many visitors."""
        return replace(self, twins=twins)

    def visitors(self) -> list[list[Visitor]]:
        """Fresh visitors, by user in order of their ids: the user, or their twins."""
        return [
            [Visitor(name, set(liked)) for name in self.twins.get(user, (user,))] for user, liked in self.likes.items()
        ]


def withheld_items(items: Iterable[str], share: float, seed: int) -> list[str]:
    """A seeded sample of the items, share in [0, 1], in the order in which they enter the catalogue.

    The sample depends on the set of items, not on their order. Raises InvalidInput for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InvalidInput(f"The share of withheld items is {share}, it must lie in [0, 1].")
    catalogue = sorted(set(items))
    chosen = np.random.default_rng(seed).permutation(len(catalogue))[: math.floor(share * len(catalogue) + 0.5)]
    return [catalogue[index] for index in chosen]


def arrival_fractions(count: int, until: float) -> list[float]:
    """When each of `count` items enters, as a fraction of the simulation: evenly over (0, until]."""
    return [until * (place + 1) / count for place in range(count)]
