"""One immutable object that holds everything a request reads of a release and the catalogue.

A change of the catalogue makes a new Snapshot that shares almost all memory with the old one; whoever holds the old one
keeps reading it undisturbed. Swapping is assigning one reference.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float32, Int32, Int64
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.manifest import Manifest, open_release
from feature_store.definitions import (
    ITEM_FEATURES,
    ITEM_TOKENS,
    RECENT_POPULARITY,
    UNKNOWN_ITEM,
    features_hash,
    token_ids,
)
from feature_store.graph import Graph
from feature_store.growing import GrowingRows
from feature_store.item_ids import UNKNOWN
from feature_store.shown import DigestIndex, Digests, Shown
from online_serving.allowed import Masks
from online_serving.attributes import Attributes
from online_serving.expressions import Columns, parse
from online_serving.item_index import ItemIndex
from online_serving.item_lists import ItemLists
from online_serving.joining import clusters_for, cutoffs, tastes
from online_serving.people import People
from online_serving.release_files import Contents, read_contents, read_digests
from online_serving.towers import Towers
from online_serving.windows import Windows

_MATCHES_KEPT = 32

_FEATURE_NAMES = [feature.name for feature in ITEM_FEATURES]
_KNOWN, _POPULARITY = map(_FEATURE_NAMES.index, ("known", "popularity"))
_RECENT = _FEATURE_NAMES.index(RECENT_POPULARITY.name)

CatalogueChange = tuple[str, Item | None]  # item id, None: deleted


class Matches(NamedTuple):
    """Which items an expression describes: the fewer of those that it does, or does not."""

    positions: Int64  # ascending
    described: bool

    @classmethod
    def found(cls, mask: Bool) -> "Matches":
        """Of a mask (size,)."""
        described = 2 * int(np.count_nonzero(mask)) <= len(mask)
        return cls(np.flatnonzero(mask if described else ~mask), described)

    def of(self, items: Int64) -> Bool:
        """(n,) whether the expression describes items (n,)."""
        place = np.searchsorted(self.positions, items)
        inside = place < len(self.positions)
        inside[inside] = self.positions[place[inside]] == items[inside]
        found: Bool = inside if self.described else ~inside
        return found


class _Stretch(NamedTuple):
    """What may be shown within a stretch of time."""

    begin: int
    end: int  # excluded
    masks: Masks


class _Growing:
    """What the snapshots of a release share. Only the newest of them adds to it; the others read what was there."""

    def __init__(self, contents: Contents, digests: Digests, nearest: int | None) -> None:
        graph, (_, vectors, item_features) = contents.graph, contents.items
        self.vectors = GrowingRows(vectors)
        self.item_features = GrowingRows(item_features)
        self.unknown = GrowingRows(np.flatnonzero(item_features[:, _KNOWN] == 0))
        self.content: dict[str, list[str]] = {}  # of live items: their content tokens
        self.alike: list[list[str]] = [[]]  # the categories of items that have the same ones, by number
        self.numbers: dict[tuple[str, ...], int] = {(): 0}  # of these
        self.categories = GrowingRows(np.zeros(graph.size, np.int32))  # of each item, as such a number
        # Releases from before there were others connected clusters by whole vectors.
        self.centroids = contents.centroids if nearest is None else tastes(contents.centroids)
        self.cutoffs = cutoffs(vectors, self.centroids, graph, nearest)
        self.max_degree = int(np.diff(graph.item_start).max(initial=1))
        self.digests = DigestIndex(digests)
        self.newest = 0  # version of the newest snapshot

    def number(self, categories: list[str]) -> int:
        """Of items with these categories."""
        found = self.numbers.setdefault(tuple(categories), len(self.alike))
        if found == len(self.alike):
            self.alike.append(categories)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A release and the catalogue as of one moment. Item positions are those of the graph; live items come last.

    All arrays that run over items have length `size`, which is the graph's.
    """

    release: str
    manifest: Manifest
    towers: Towers
    index: ItemIndex
    lists: ItemLists | None  # of the items that training knew
    centroids: Float32  # (C, d)
    graph: Graph
    vectors: Float32  # (size, d)
    item_features: Float32  # (size, len(ITEM_FEATURES))
    available: Bool  # (size,) in the catalogue and available
    categories: Mapping[str, Int64]  # positions of the items of each category, ascending
    unknown: Int64  # positions of the items that training knew nothing of, oldest first
    popular: Int64  # positions of the release's items: those that most people liked of late first
    people: People
    attributes: Attributes
    windows: Windows
    _growing: _Growing = field(repr=False)
    _version: int = 0
    masks: Masks = field(init=False, repr=False)  # of what is available
    _now: list[_Stretch] = field(init=False, repr=False)  # the last to be asked for, if there are windows
    _matches: dict[str, Matches] = field(init=False, repr=False)  # by expression, the last to be asked for last

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", Masks(self.available))
        object.__setattr__(self, "_now", [])
        object.__setattr__(self, "_matches", {})

    @classmethod
    def load(cls, releases: Path, release: str, catalogue: Iterable[Item] | None = None) -> "Snapshot":
        """Reads the release `<releases>/<release>/` and puts the catalogue over it.

        catalogue: all items that may be recommended; items of the release that are not among them are masked. None:
        every item of the release is available. Raises ReleaseRefused if the release is damaged or does not fit this
        program.
        """
        directory = releases / release
        manifest = open_release(directory, features_hash())
        contents = read_contents(directory, manifest)
        ids, vectors, item_features = contents.items
        growing = _Growing(contents, read_digests(directory), manifest.nearest_items)
        towers = Towers(directory)
        snapshot = cls(
            release=release,
            manifest=manifest,
            towers=towers,
            index=ItemIndex(contents.index),
            lists=ItemLists.load(directory, len(ids)),
            centroids=contents.centroids,
            graph=contents.graph,
            vectors=vectors,
            item_features=item_features,
            available=np.full(len(ids), catalogue is None),
            categories={},
            unknown=growing.unknown.rows,
            popular=by_popularity(item_features),
            people=People(
                towers,
                contents.centroids,
                manifest.history_length,
                manifest.active_clusters,
                manifest.context_temperature,
            ),
            attributes=Attributes(),
            windows=Windows.none(),
            _growing=growing,
        )
        return snapshot if catalogue is None else snapshot.with_items((item.id, item) for item in catalogue)

    @property
    def size(self) -> int:
        """Number of items."""
        return self.graph.size

    def position(self, item: str) -> int | None:
        """The position of an item, None if the snapshot has none of this id."""
        return self.graph.position(item)

    def positions(self, items: Iterable[str] | Shown) -> Int64:
        """Positions of the items that the snapshot has, in the order given; the others are left out."""
        if isinstance(items, Shown):
            return self._growing.digests.positions(items.digests(), self.size)
        found = self.graph.positions(items)
        known: Int64 = found[found != UNKNOWN]
        return known

    def categories_of(self, positions: Int64) -> list[list[str]]:
        """The categories of items, as the newest snapshot of the release has them."""
        growing = self._growing
        return [growing.alike[number] for number in growing.categories.rows[positions].tolist()]

    def masks_at(self, time: int | None) -> Masks:
        """Of what is available and may be shown at a time (ms), None: whatever its window says. Items are looked at
        where the time has passed one at which something comes or goes."""
        if time is None or not len(self.windows.times):
            return self.masks
        for begin, end, masks in self._now:
            if begin <= time < end:
                return masks
        available = self.available.copy()
        available[self.windows.closed(time)] = False
        found = _Stretch(*self.windows.unchanged(time), Masks(available))
        self._now[:] = [found]
        return found.masks

    def matching(self, expression: str) -> Matches:
        """The items that a filter expression describes; those of the last _MATCHES_KEPT are remembered. Raises
        BrokenExpression."""
        found = self._matches.pop(expression, None)
        if found is None:
            found = Matches.found(parse(expression)(Columns(self.attributes, self.categories, self.size)))
            while len(self._matches) >= _MATCHES_KEPT:
                self._matches.pop(next(iter(self._matches)), None)
        self._matches[expression] = found
        return found

    def with_items(self, changes: Iterable[CatalogueChange]) -> "Snapshot":
        """The snapshot after changes of the catalogue; this one stays as it is.

        New items are embedded by the item tower from their content, and join the clusters that they would have been
        connected to in training. Items deleted or unavailable are masked. New content of an item that training has
        embedded changes only its categories; its vector changes with the next release. Raises InvalidInput if this is
        not the newest snapshot of its release in memory.
        """
        if self._version != self._growing.newest:
            raise InvalidInput("This snapshot has been changed already. Change the one that came out of it.")
        growing, latest = self._growing, dict(changes)
        positions = self.graph.positions(latest)
        items = [item for item in latest.values() if item is not None]
        changed = [i for i in items if i.id in growing.content and growing.content[i.id] != i.tokens()]
        new = [
            item
            for item, position in zip(latest.values(), positions.tolist(), strict=True)
            if position == UNKNOWN and item is not None and item.available
        ]
        embedded = self._embedded([*changed, *new])  # first: whatever fails must leave nothing half changed
        snapshot = self._with_content(changed, embedded[: len(changed)])
        snapshot = snapshot._with_new(new, embedded[len(changed) :])  # noqa: SLF001 - of the same class
        if new:
            positions = snapshot.graph.positions(latest)
        has = positions != UNKNOWN
        known, positions = list(compress(latest.values(), has.tolist())), positions[has]
        at = dict(zip(positions.tolist(), known, strict=True))
        available = snapshot.available.copy()
        available[positions] = [item is not None and item.available for item in known]
        growing.newest += 1
        return replace(
            snapshot,
            available=available,
            categories=_regrouped(growing, self.categories, known, positions),
            attributes=self.attributes.with_items(at.items()),
            windows=self.windows.with_items(at.items()),
            _version=growing.newest,
        )

    def _embedded(self, items: Sequence[Item]) -> Float32:
        """(n, d) vectors of items that training has not seen, from their content."""
        if not items:
            return self.vectors[:0]
        tokens = np.stack([token_ids(item.tokens(), ITEM_TOKENS) for item in items])
        return self.towers.item_vectors(tokens)

    def _with_content(self, changed: list[Item], embedded: Float32) -> "Snapshot":
        """Moves live items whose content changed, in a copy: requests in flight keep the vectors they have."""
        if not changed:
            return self
        growing, vectors = self._growing, self.vectors.copy()
        vectors[self.positions(item.id for item in changed)] = embedded
        growing.vectors = GrowingRows(vectors)
        growing.content.update((item.id, item.tokens()) for item in changed)
        return replace(self, vectors=growing.vectors.rows, people=self.people.anew())

    def _with_new(self, items: list[Item], vectors: Float32) -> "Snapshot":
        if not items:
            return self
        growing = self._growing
        clusters = [clusters_for(vector, growing.centroids, growing.cutoffs, growing.max_degree) for vector in vectors]
        graph = self.graph.with_items([item.id for item in items], clusters)
        added = np.arange(self.size, graph.size)
        growing.vectors.append(vectors)
        growing.item_features.append(np.tile(UNKNOWN_ITEM, (len(items), 1)))
        growing.unknown.append(added)
        growing.categories.append(np.zeros(len(items), np.int32))
        growing.digests.append([item.id for item in items])
        growing.content.update((item.id, item.tokens()) for item in items)
        return replace(
            self,
            graph=graph,
            vectors=growing.vectors.rows,
            item_features=growing.item_features.rows,
            available=np.append(self.available, np.ones(len(items), dtype=np.bool_)),
            unknown=growing.unknown.rows,
        )


def by_popularity(item_features: Float32) -> Int64:
    """The order of n items with these features (n, len(ITEM_FEATURES)) in which those come first that most people liked
    of late, of equals those that most people ever liked."""
    order: Int64 = np.lexsort((-item_features[:, _POPULARITY], -item_features[:, _RECENT]))
    return order


def _regrouped(
    growing: _Growing, categories: Mapping[str, Int64], items: Sequence[Item | None], positions: Int64
) -> Mapping[str, Int64]:
    """Positions by category after items (n,) at these positions have changed, None: deleted. Only lists that change are
    copied."""
    now = np.fromiter((growing.number([] if item is None else item.categories) for item in items), np.int32, len(items))
    then = growing.categories.rows[positions]
    growing.categories.rows[positions] = now
    leaving: dict[str, list[Int64]] = {}
    joining: dict[str, list[Int64]] = {}
    for places, before, after in _changes(positions, then, now):
        old, new = growing.alike[before], growing.alike[after]
        for category in set(old).difference(new):
            leaving.setdefault(category, []).append(places)
        for category in set(new).difference(old):
            joining.setdefault(category, []).append(places)
    regrouped = dict(categories)
    nothing = np.empty(0, dtype=np.int64)
    for category in {*leaving, *joining}:
        # Neither sorts the whole category: a catalogue is loaded in parts, and each part changes most of them.
        kept = _without(regrouped.get(category, nothing), np.concatenate([nothing, *leaving.get(category, [])]))
        regrouped[category] = _with(kept, np.concatenate([nothing, *joining.get(category, [])]))
    return regrouped


def _changes(positions: Int64, then: Int32, now: Int32) -> Iterator[tuple[Int64, int, int]]:
    """The positions of items that went from one number to another, for each two of them."""
    differ = np.flatnonzero(then != now)
    if not len(differ):
        return
    order = differ[np.lexsort((now[differ], then[differ]))]
    ends = np.flatnonzero((np.diff(then[order]) != 0) | (np.diff(now[order]) != 0)) + 1
    for part in np.split(order, ends):
        yield positions[part], int(then[part[0]]), int(now[part[0]])


def _without(members: Int64, leaving: Int64) -> Int64:
    """Ascending positions without some of them."""
    kept: Int64 = np.delete(members, np.searchsorted(members, leaving))
    return kept


def _with(members: Int64, joining: Int64) -> Int64:
    """Ascending positions and others."""
    new = np.sort(joining)
    both: Int64 = np.insert(members, np.searchsorted(members, new), new)
    return both
