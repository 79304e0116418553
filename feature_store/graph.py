"""The sparse bipartite graph of user clusters and items (Online Matching): which edges exist, and which row each one
is.

The edges of the items that a graph begins with have rows by cluster, items ascending within one: a decision reads all
edges of a few clusters, so what it reads lies together. The edges of items that are appended have the rows after these,
in the order they come: row numbers stay valid while the catalogue grows. One thread appends; others may read meanwhile.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.errors import InvalidInput, ReleaseRefused

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

T = TypeVar("T", bound=np.generic)

_CLUSTERS = b"matchloop.clusters"
_NOTHING: Int32 = np.empty(0, dtype=np.int32)
_NONE = -1  # ends a chain


class Adjacency(NamedTuple):
    """The edges by cluster, for compiled code: those of the graph's first items as one array, those that were appended
    as a chain per cluster, newest first."""

    start: Int64  # (clusters + 1,) the first row of each cluster's first edges
    items: Int32  # (first edges,) by row: item index, ascending within a cluster
    newest: Int32  # (clusters,) the cluster's newest appended edge, as row - first edges; -1: none
    older: Int32  # (>= appended edges,) the one before it in the same cluster; -1: none
    appended: Int32  # (>= appended edges,) item index


class Graph:
    """Clusters, items and the edges between them."""

    def __init__(self, clusters: int, items: Sequence[str] = (), start: Int64 | None = None, cluster: Int32 = _NOTHING):
        """Takes over arrays laid out as item_start (items + 1,) and edge_cluster (edges,). Raises InvalidInput if an
        item comes twice or an edge leads outside."""
        self.clusters = clusters
        self.items = list(items)
        self.index = {name: j for j, name in enumerate(self.items)}
        self._start: Int64 = np.zeros(1, dtype=np.int64) if start is None else start
        self._cluster = cluster
        self._n_edges = len(cluster)
        if len(self.index) < len(self.items):
            twice = next(name for j, name in enumerate(self.items) if self.index[name] != j)
            raise InvalidInput(f"Item {twice!r} comes twice in the graph.")
        if len(cluster) and (cluster.min() < 0 or cluster.max() >= clusters):
            raise InvalidInput(f"An edge names cluster {cluster.min()}..{cluster.max()}, there are {clusters}.")
        first, first_items = _transposed(self._start, cluster, clusters)
        newest: Int32 = np.full(clusters, _NONE, dtype=np.int32)
        self._adjacency = Adjacency(first, first_items, newest, _NOTHING, _NOTHING)

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
        return self._n_edges

    @property
    def item_start(self) -> Int64:
        """(items + 1,) where each item's clusters begin in edge_cluster, and the end of the last."""
        return self._start[: len(self.items) + 1]

    @property
    def edge_cluster(self) -> Int32:
        """(edges,) the clusters of the first item, ascending, then those of the second, ..."""
        return self._cluster[: self._n_edges]

    @property
    def adjacency(self) -> Adjacency:
        """The edges by cluster, as of now."""
        return self._adjacency

    def items_of(self, cluster: int) -> Int32:
        """Indexes of the items connected to a cluster, ascending."""
        start, items, newest, older, appended = self._adjacency
        later = []
        at = newest[cluster]
        while at != _NONE:
            later.append(appended[at])
            at = older[at]
        first = items[start[cluster] : start[cluster + 1]]
        return np.append(first, np.array(later[::-1], dtype=np.int32)) if later else first

    def clusters_of(self, item: int) -> Int32:
        """The clusters an item is connected to, ascending."""
        return self._cluster[self._start[item] : self._start[item + 1]]

    def row(self, cluster: int, item: int) -> int | None:
        """The edge row of (cluster, item index), None if there is no such edge."""
        row = int(find_row(self._adjacency, self.item_start, self.edge_cluster, item, cluster))
        return None if row == _NONE else row

    def append(self, item: str, clusters: Sequence[int]) -> int:
        """Adds an item with its edges and returns its index. Raises InvalidInput if the item is there already."""
        if item in self.index:
            raise InvalidInput(f"Item {item!r} is in the graph already.")
        distinct = sorted(set(clusters))
        if distinct and not (distinct[0] >= 0 and distinct[-1] < self.clusters):
            raise InvalidInput(f"Item {item!r} names cluster {distinct[-1]}, there are {self.clusters}.")
        j = len(self.items)
        end = self._n_edges + len(distinct)
        self._start = _grown(self._start, j + 2)
        self._cluster = _grown(self._cluster, end)
        self._cluster[self._n_edges : end] = distinct
        self._start[j + 1] = end
        self._adjacency = _chained(self._adjacency, self._n_edges, j, distinct)
        self._n_edges = end
        self.items.append(item)
        self.index[item] = j
        return j

    def save(self, path: Path) -> None:
        """Writes one Parquet file: item and its clusters; the number of clusters in the file's metadata."""
        lists = pa.LargeListArray.from_arrays(self.item_start, pa.array(self.edge_cluster, pa.int32()))
        table = pa.table({"item": pa.array(self.items, pa.string()), "clusters": lists})
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
        return cls(int(metadata[_CLUSTERS]), table.column("item").to_pylist(), start, cluster)


def _chained(before: Adjacency, row: int, item: int, clusters: Sequence[int]) -> Adjacency:
    """With an item's edges, rows from `row` on. Whoever reads `before` goes on reading what it held."""
    first = row - len(before.items)
    end = first + len(clusters)
    newest, older, appended = before.newest.copy(), _grown(before.older, end), _grown(before.appended, end)
    older[first:end], appended[first:end] = newest[clusters], item
    newest[clusters] = np.arange(first, end)
    return before._replace(newest=newest, older=older, appended=appended)


@numba.njit(cache=True)
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


@numba.njit(cache=True)
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


def _grown(array: NDArray[T], size: int) -> NDArray[T]:
    """The array with room for `size` values, capacity doubled when it has to grow."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), dtype=array.dtype)
    larger[: len(array)] = array
    return larger
