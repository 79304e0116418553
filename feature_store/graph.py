"""The sparse bipartite graph of user clusters and items (Online Matching): which edges exist, and which row each one
is.

The edges of the items that a graph begins with have rows by cluster, items ascending within one: a decision reads all
edges of a few clusters, so what it reads lies together. The edges of items that are added later have the rows after
these, in the order they come: row numbers stay valid while the catalogue grows.

A graph is a value: its arrays belong to one number of items. Adding items makes another graph, which shares memory with
the one before; whoever holds that one goes on reading what it held, from whichever thread.
"""

import copy
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrays import Int32, Int64
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.growing import GrowingRows
from feature_store.item_ids import UNKNOWN, ItemIds

_CLUSTERS = b"matchloop.clusters"
_NOTHING: Int32 = np.empty(0, dtype=np.int32)
_NONE = -1  # ends a chain


class Adjacency(NamedTuple):
    """The edges by cluster, for compiled code: those of the graph's first items as one array, those that were appended
    as a chain per cluster, newest first."""

    start: Int64  # (clusters + 1,) the first row of each cluster's first edges
    items: Int32  # (first edges,) by row: item index, ascending within a cluster
    newest: Int32  # (clusters,) the cluster's newest appended edge, as row - first edges; -1: none
    older: Int32  # (appended edges,) the one before it in the same cluster; -1: none
    appended: Int32  # (appended edges,) item index

    @property
    def n_edges(self) -> int:
        """Number of edges, which is that of the rows that are read by these row numbers."""
        return len(self.items) + len(self.appended)


class _Lineage:
    """What graphs that grew out of one another share. Only the largest of them adds to it."""

    def __init__(self, ids: ItemIds, start: Int64, cluster: Int32) -> None:
        self.ids = ids
        self.start = GrowingRows(start)
        self.cluster = GrowingRows(cluster)
        self.older = GrowingRows(_NOTHING)
        self.appended = GrowingRows(_NOTHING)


class Graph:
    """Clusters, items and the edges between them, as of one moment."""

    clusters: int
    size: int  # items
    adjacency: Adjacency  # the edges by cluster
    item_start: Int64  # (size + 1,) where each item's clusters begin in edge_cluster, and the end of the last
    edge_cluster: Int32  # (edges,) the clusters of the first item, ascending, then those of the second, ...

    def __init__(
        self, clusters: int, items: Sequence[str] | ItemIds = (), start: Int64 | None = None, cluster: Int32 = _NOTHING
    ) -> None:
        """Takes over arrays laid out as item_start (items + 1,) and edge_cluster (edges,). Raises InvalidInput if an
        item comes twice or an edge leads outside."""
        self.clusters = clusters
        self.size = len(items)
        self.item_start = np.zeros(1, dtype=np.int64) if start is None else start
        self.edge_cluster = cluster
        ids = items if isinstance(items, ItemIds) else ItemIds.of(items)
        self._lineage = _Lineage(ids, self.item_start, cluster)
        if len(cluster) and (cluster.min() < 0 or cluster.max() >= clusters):
            raise InvalidInput(f"An edge names cluster {cluster.min()}..{cluster.max()}, there are {clusters}.")
        first, first_items = _transposed(self.item_start, cluster, clusters)
        newest: Int32 = np.full(clusters, _NONE, dtype=np.int32)
        self.adjacency = Adjacency(first, first_items, newest, _NOTHING, _NOTHING)

    @classmethod
    def build(cls, items: Sequence[str], item: Int64, cluster: Int64, clusters: int) -> "Graph":
        """items: distinct ids. item, cluster: (E,) edges as item index and cluster, in any order, none twice.

        Raises InvalidInput if an item comes twice or an edge leads outside.
        """
        if len(item) and (item.min() < 0 or item.max() >= len(items)):
            raise InvalidInput(f"An edge names item {item.min()}..{item.max()}, there are {len(items)} items.")
        order = np.lexsort((cluster, item))
        start = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum(np.bincount(item, minlength=len(items)), out=start[1:])
        return cls(clusters, items, start, cluster[order].astype(np.int32))

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edge_cluster)

    @property
    def items(self) -> list[str]:
        """The ids of all items: a new list at each call, O(size)."""
        return self._lineage.ids.strings(self.size)

    @property
    def item_ids(self) -> ItemIds:
        """Those of its items, and behind them those of graphs that grew out of it."""
        return self._lineage.ids

    def ids(self, positions: Iterable[int]) -> list[str]:
        """The ids of the items at positions below `size`."""
        return self._lineage.ids.names(positions)

    def position(self, item: str) -> int | None:
        """The index of an item, None if the graph has none of this id."""
        j = int(self.positions([item])[0])
        return None if j == UNKNOWN else j

    def positions(self, items: Iterable[str]) -> Int64:
        """(n,) the indexes of items, -1 for those that the graph does not have."""
        found = self._lineage.ids.positions(items)
        found[found >= self.size] = UNKNOWN
        return found

    def items_of(self, cluster: int) -> Int32:
        """Indexes of the items connected to a cluster, ascending."""
        connected: Int32 = _items_of(self.adjacency, cluster)
        return connected

    def clusters_of(self, item: int) -> Int32:
        """The clusters an item is connected to, ascending."""
        return self.edge_cluster[self.item_start[item] : self.item_start[item + 1]]

    def row(self, cluster: int, item: int) -> int | None:
        """The edge row of (cluster, item index), None if there is no such edge."""
        row = int(find_row(self.adjacency, self.item_start, self.edge_cluster, item, cluster))
        return None if row == _NONE else row

    def with_items(self, items: Sequence[str], clusters: Sequence[Collection[int]]) -> "Graph":
        """The graph with new items behind its own, each with the clusters that it is connected to. Takes as long as
        they are many, whatever the size of the graph.

        Raises InvalidInput if an item is in the graph already or comes twice, if an edge leads outside, or if this
        graph has been grown before: its memory continues in the graph that came out of it.
        """
        shared = self._lineage
        if len(shared.ids) != self.size:
            raise InvalidInput("This graph has been grown already. Add to the one that came out of it.")
        distinct = [sorted(set(found)) for found in clusters]
        new: set[str] = set()
        for name, known in zip(items, self.positions(items).tolist(), strict=True):
            if known != UNKNOWN or name in new:
                raise InvalidInput(f"Item {name!r} is in the graph already.")
            new.add(name)
        for name, found in zip(items, distinct, strict=True):
            if found and not (found[0] >= 0 and found[-1] < self.clusters):
                raise InvalidInput(f"Item {name!r} names cluster {found[-1]}, there are {self.clusters}.")
        added = np.fromiter(chain.from_iterable(distinct), np.int32)
        ends = self.n_edges + np.cumsum([len(found) for found in distinct], dtype=np.int64)
        newest, older = self.adjacency.newest.copy(), np.empty(len(added), dtype=np.int32)
        _chain(added, len(self.adjacency.older), newest, older)
        shared.start.append(ends)
        shared.cluster.append(added)
        shared.older.append(older)
        shared.appended.append(
            np.repeat(np.arange(self.size, self.size + len(items), dtype=np.int32), [len(found) for found in distinct])
        )
        shared.ids.append(items)
        grown = copy.copy(self)
        grown.size = self.size + len(items)
        grown.item_start, grown.edge_cluster = shared.start.rows, shared.cluster.rows
        grown.adjacency = self.adjacency._replace(newest=newest, older=shared.older.rows, appended=shared.appended.rows)
        return grown

    def continues(self, other: "Graph") -> bool:
        """Whether this graph is the other one, or grew out of it: what has the other's rows can be read by this one's
        row numbers, as far as they go."""
        return self._lineage is other._lineage and self.size >= other.size  # noqa: SLF001 - of the same class

    def save(self, path: Path) -> None:
        """Writes one Parquet file: item and its clusters; the number of clusters in the file's metadata."""
        lists = pa.LargeListArray.from_arrays(self.item_start, pa.array(self.edge_cluster, pa.int32()))
        table = pa.table({"item": self._lineage.ids.column(self.size).cast(pa.string()), "clusters": lists})
        pq.write_table(table.replace_schema_metadata({_CLUSTERS: str(self.clusters)}), path)

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Reads what save wrote. Raises ReleaseRefused if the file is not a graph."""
        table = pq.read_table(path, use_threads=False)  # each of Arrow's threads keeps memory to itself
        metadata = table.schema.metadata or {}
        if _CLUSTERS not in metadata:
            raise ReleaseRefused(
                f"{path} is not a graph file: it does not say how many clusters there are. Train again."
            )
        lists = table.column("clusters").combine_chunks()
        start = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum(lists.value_lengths().to_numpy(), out=start[1:])
        cluster = lists.flatten().to_numpy().astype(np.int32)  # a copy: Arrow's buffers go
        return cls(int(metadata[_CLUSTERS]), ItemIds(table.column("item")), start, cluster)


@numba.njit(cache=True, nogil=True)
def _items_of(adjacency, cluster):  # type: ignore[no-untyped-def]  # numba infers the types
    first = adjacency.items[adjacency.start[cluster] : adjacency.start[cluster + 1]]
    count, at = 0, adjacency.newest[cluster]
    while at >= 0:
        count, at = count + 1, adjacency.older[at]
    if count == 0:
        return first
    connected = np.empty(len(first) + count, dtype=np.int32)
    connected[: len(first)] = first
    place, at = len(connected), adjacency.newest[cluster]
    while at >= 0:
        place -= 1
        connected[place] = adjacency.appended[at]
        at = adjacency.older[at]
    return connected


@numba.njit(cache=True, nogil=True)
def _chain(cluster, first, newest, older):  # type: ignore[no-untyped-def]  # numba infers the types
    """Links new edges, the first of which is appended edge number `first`, to those before them in their clusters:
    fills older (edges,) and updates newest (clusters,)."""
    for i in range(len(cluster)):
        older[i] = newest[cluster[i]]
        newest[cluster[i]] = first + i


@numba.njit(cache=True, nogil=True)
def _transposed(item_start, edge_cluster, clusters):  # type: ignore[no-untyped-def]  # numba infers the types
    """The first two arrays of an Adjacency."""
    start = np.zeros(clusters + 1, dtype=np.int64)
    for cluster in edge_cluster:
        start[cluster + 1] += 1
    start = np.cumsum(start)
    end = start[:-1].copy()
    items = np.empty(len(edge_cluster), dtype=np.int32)
    for j in range(len(item_start) - 1):
        for cluster in edge_cluster[item_start[j] : item_start[j + 1]]:
            items[end[cluster]] = j
            end[cluster] += 1
    return start, items


@numba.njit(cache=True, nogil=True)
def find_row(adjacency, item_start, edge_cluster, item, cluster):  # type: ignore[no-untyped-def]  # numba infers it
    """The edge row of an item and a cluster, -1 if there is no such edge."""
    if not 0 <= cluster < len(adjacency.newest):
        return _NONE
    first, end = item_start[item], item_start[item + 1]
    values, wanted = edge_cluster, cluster
    if first < len(adjacency.items):
        first, end = adjacency.start[cluster], adjacency.start[cluster + 1]
        values, wanted = adjacency.items, item
    row = first + np.searchsorted(values[first:end], wanted)
    return row if row < end and values[row] == wanted else _NONE
