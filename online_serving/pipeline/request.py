"""What the pipeline is asked and what it answers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Float64, Int64
from feature_store.contracts.events import SlateColumns
from feature_store.definitions import HistoryEvent
from feature_store.graph import Graph
from feature_store.shown import NOTHING_SHOWN, Shown, ShownItems
from online_serving.settings import Boosting
from streaming.bandit.ruled_slates import SlateRules

Uint8 = NDArray[np.uint8]


class UserFeatures(Protocol):
    """What is known about the user: feature_store.online.UserFeatures, or what a log recorded of it."""

    @property
    def profile(self) -> Sequence[str]: ...  # tokens

    @property
    def history(self) -> Sequence[HistoryEvent]: ...  # newest first

    @property
    def shown(self) -> ShownItems: ...


@dataclass(frozen=True, slots=True)
class Filter:
    """A set of items: those named and those of the categories named."""

    items: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request for a slate."""

    slate_size: int
    exclude: Filter = Filter()
    only: Filter | None = None  # None: no such rule
    where: str | None = None  # a filter expression: nothing but what it describes
    boosts: tuple[tuple[str, Boosting], ...] = ()  # filter expressions, and what they multiply estimates by
    caps: tuple[tuple[str, int], ...] = ()  # at most so many items of a slate with the same value of an attribute
    pins: tuple[tuple[str, int], ...] = ()  # items and their places in the answer, from 1
    diversity: float = 0.0  # how much it counts against items that they are like others of the slate, in [0, 1]
    before: Shown = NOTHING_SHOWN  # the items of earlier pages
    context: tuple[str, ...] = ()  # tokens of what the request says about the user
    surface: str = "default"  # where the slate will be shown
    time: int | None = None  # ms since the epoch; None: when the release was made, and nothing of it is stale


class Candidates(NamedTuple):
    """What a slate was drawn from: hundreds of items, of which few requests need the names."""

    graph: Graph
    positions: Int64  # (n,) in the graph
    predicted: Float64
    sources: Uint8  # bits

    def ids(self) -> list[str]:
        """Their ids."""
        return self.graph.ids(self.positions.tolist())


class Recommendation(SlateColumns, frozen=True, kw_only=True):
    """A slate, what led to it, and all candidates for it."""

    candidates: Candidates
    rules: dict[str, int]  # items that each rule took out
    slate_rules: SlateRules | None = None  # what held among the items of the slate, over the candidates
    pinned_predicted: list[float] = msgspec.field(default_factory=list)  # parallel to pinned
    pinned_mean: list[float] = msgspec.field(default_factory=list)  # parallel to pinned

    @property
    def slate(self) -> list[str]:
        """The items that were drawn, in their order."""
        return self.items[: self.shown]

    @property
    def explored(self) -> int:
        """Places whose item did not have the highest mean of those left that the rules allow."""
        if self.greedy is not None:
            return self.greedy.count(0.0)
        highest = list(itertools.accumulate(reversed(self.mean), max))[::-1]
        return sum(self.mean[place] < highest[place] for place in range(self.shown))

    @property
    def places(self) -> list[int]:
        """Where in the answer the items of the slate are, from 1."""
        pinned = self.pinned_places or ()
        return [place for place in range(1, self.shown + len(pinned) + 1) if place not in pinned]

    @property
    def answered(self) -> list[str]:
        """All items to show, in position order."""
        both = zip((*self.places, *(self.pinned_places or ())), (*self.slate, *(self.pinned or ())), strict=True)
        return [item for _, item in sorted(both)]
