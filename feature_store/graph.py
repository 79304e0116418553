"""The sparse bipartite graph of user clusters and items (Online Matching): which edges exist, and which row each one
is.

Edges are stored by item: those of item j are the rows item_start[j] to item_start[j + 1], their clusters ascending.
Items are only ever appended, so row numbers stay valid while the catalogue grows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.errors import InvalidInput, ReleaseRefused

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

T = TypeVar("T", bound=np.generic)

_CLUSTERS = b"matchloop.clusters"


class Graph:
    """Clusters, items and the edges between them."""

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self.items: list[str] = []
        self.index: dict[str, int] = {}
        self._start: Int64 = np.zeros(64, dtype=np.int64)
        self._cluster: Int32 = np.zeros(64, dtype=np.int32)
        self._n_edges = 0
        self._by_cluster: list[list[int]] = [[] for _ in range(clusters)]

    @classmethod
    def build(cls, items: Sequence[str], item: Int64, cluster: Int64, clusters: int) -> "Graph":
        """items: distinct ids. item, cluster: (E,) edges as item index and cluster, in any order, none twice.

        Raises InvalidInput if an item comes twice or an edge leads outside.
        """
        graph = cls(clusters)
        if len(item) and (item.min() < 0 or item.max() >= len(items)):
            raise InvalidInput(f"An edge names item {item.min()}..{item.max()}, there are {len(items)} items.")
        order = np.lexsort((cluster, item))
        bounds = np.searchsorted(item[order], np.arange(len(items) + 1))
        ordered = cluster[order]
        for j, name in enumerate(items):
            graph.append(name, ordered[bounds[j] : bounds[j + 1]].tolist())
        return graph

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return self._n_edges

    @property
    def item_start(self) -> Int64:
        """(items + 1,) first edge row of each item, and the end of the last."""
        return self._start[: len(self.items) + 1]

    @property
    def edge_cluster(self) -> Int32:
        """(edges,) the cluster of each edge row."""
        return self._cluster[: self._n_edges]

    def items_of(self, cluster: int) -> list[int]:
        """Indexes of the items connected to a cluster, in the order they came."""
        return self._by_cluster[cluster]

    def clusters_of(self, item: int) -> Int32:
        """The clusters an item is connected to, ascending."""
        return self._cluster[self._start[item] : self._start[item + 1]]

    def row(self, cluster: int, item: int) -> int | None:
        """The edge row of (cluster, item index), None if there is no such edge."""
        first = int(self._start[item])
        clusters = self._cluster[first : self._start[item + 1]]
        at = int(np.searchsorted(clusters, cluster))
        return first + at if at < len(clusters) and clusters[at] == cluster else None

    def append(self, item: str, clusters: Sequence[int]) -> int:
        """Adds an item with its edges and returns its index. Raises InvalidInput if the item is there already."""
        if item in self.index:
            raise InvalidInput(f"Item {item!r} is in the graph already.")
        distinct = sorted(set(clusters))
        if distinct and not (distinct[0] >= 0 and distinct[-1] < self.clusters):
            raise InvalidInput(f"Item {item!r} names cluster {distinct[-1]}, there are {self.clusters}.")
        j = self.index[item] = len(self.items)
        self.items.append(item)
        end = self._n_edges + len(distinct)
        self._start = _grown(self._start, j + 2)
        self._cluster = _grown(self._cluster, end)
        self._cluster[self._n_edges : end] = distinct
        self._n_edges = end
        self._start[j + 1] = end
        for cluster in distinct:
            self._by_cluster[cluster].append(j)
        return j

    def copy(self) -> "Graph":
        """An independent copy."""
        twin = Graph(self.clusters)
        twin.items, twin.index = list(self.items), dict(self.index)
        twin._start, twin._cluster, twin._n_edges = self._start.copy(), self._cluster.copy(), self._n_edges
        twin._by_cluster = [list(items) for items in self._by_cluster]
        return twin

    def save(self, path: Path) -> None:
        """Writes one Parquet file: item and its clusters; the number of clusters in the file's metadata."""
        lists = pa.LargeListArray.from_arrays(self.item_start, pa.array(self.edge_cluster, pa.int32()))
        table = pa.table({"item": pa.array(self.items, pa.string()), "clusters": lists})
        pq.write_table(table.replace_schema_metadata({_CLUSTERS: str(self.clusters)}), path)

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Reads what save wrote. Raises ReleaseRefused if the file is not a graph."""
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if _CLUSTERS not in metadata:
            raise ReleaseRefused(
                f"{path} is not a graph file: it does not say how many clusters there are. Train again."
            )
        lists = table.column("clusters").combine_chunks()
        items = table.column("item").to_pylist()
        cluster = lists.flatten().to_numpy().astype(np.int64)
        item = np.repeat(np.arange(len(items)), lists.value_lengths().to_numpy().astype(np.int64))
        return cls.build(items, item, cluster, int(metadata[_CLUSTERS]))


def _grown(array: NDArray[T], size: int) -> NDArray[T]:
    """The array with room for `size` values, capacity doubled when it has to grow."""
    if size <= len(array):
        return array
    larger = np.zeros(max(size, 2 * len(array)), dtype=array.dtype)
    larger[: len(array)] = array
    return larger
