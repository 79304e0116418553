"""The bandit's parameters in memory: what requests score with.

parameters = base of the namespace + the latest absolute rows of every partition. Nothing is ever counted here: a row
that comes replaces the one that its partition sent before. Rows of items that the snapshot does not have yet are
remembered and take effect when the item appears.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_store.graph import Graph
from feature_store.sums import COLUMNS, Sums, edge_key, item_key, split_key
from online_serving.growing import GrowingRows
from streaming.bandit.diag_linucb import Table

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Parameters:
    """Base and partitions of one namespace over one graph, which may grow meanwhile. Used from one thread at a time."""

    def __init__(self, graph: Graph, size: int, base: Sums, offsets: Sequence[int]) -> None:
        """size: items of the graph to hold. offsets: per partition, the next log offset that the base does not hold."""
        self._graph = graph
        self._parts = [Sums() for _ in offsets]
        self._offsets = list(offsets)
        self._edges: GrowingRows[np.float64] = GrowingRows(np.zeros((0, COLUMNS)))
        self._items: GrowingRows[np.float64] = GrowingRows(np.zeros((0, COLUMNS)))
        self._total = np.zeros(COLUMNS)
        self._base = base
        self.extend(size)

    @property
    def offsets(self) -> list[int]:
        """Per partition, the next log offset that the parameters do not hold."""
        return list(self._offsets)

    def table(self) -> Table:
        """The parameters by row number of the graph. A view: it changes with the next apply, reload or extend."""
        return Table(
            self._graph.adjacency,
            self._edges.rows,
            self._items.rows,
            self._total,
        )

    def apply(self, partition: int, offset: int, keys: Sequence[str], rows: Float64) -> None:
        """Replaces a partition's rows by newer absolute ones, as of the log offset: distinct keys (n,), rows (n, 5)."""
        part = self._parts[partition]
        old = np.stack([part.get(key) for key in keys]) if keys else np.zeros((0, COLUMNS))
        part.put(keys, rows)
        self._add(keys, rows - old)
        self._offsets[partition] = offset

    def reload(self, partition: int, offset: int, sums: Sums) -> None:
        """Replaces everything known of a partition."""
        before = self._parts[partition].keys()
        gone = [key for key in before if key not in sums]
        rows = np.concatenate([sums.rows(), np.zeros((len(gone), COLUMNS))])
        self.apply(partition, offset, [*sums.keys(), *gone], rows)
        self._parts[partition] = sums.copy()

    def extend(self, size: int) -> None:
        """Takes in the items that were appended to the graph, up to `size` items in all."""
        first = len(self._items.rows)
        names = self._graph.items[first:size]
        item_rows = [self._sum(item_key(name)) for name in names]
        edge_rows = [
            self._sum(edge_key(int(cluster), name))
            for j, name in enumerate(names, first)
            for cluster in self._graph.clusters_of(j)
        ]
        if names:
            self._items.append(np.stack(item_rows))
            self._total += np.sum(item_rows, axis=0)
        if edge_rows:
            self._edges.append(np.stack(edge_rows))

    def _sum(self, key: str) -> Float64:
        row = self._base.get(key)
        for part in self._parts:
            if key in part:
                row += part.get(key)
        return row

    def _add(self, keys: Sequence[str], change: Float64) -> None:
        """Adds to the rows of the graph that the keys name; the others wait in their partition for extend()."""
        known = len(self._items.rows)
        items, item_change, edges, edge_change = [], [], [], []
        for i, key in enumerate(keys):
            cluster, name = split_key(key)
            j = self._graph.index.get(name, known)
            if j >= known:
                continue
            if cluster is None:
                items.append(j)
                item_change.append(i)
            elif (row := self._graph.row(cluster, j)) is not None:
                edges.append(row)
                edge_change.append(i)
        self._items.rows[items] += change[item_change]
        self._edges.rows[edges] += change[edge_change]
        self._total += change[item_change].sum(axis=0)
