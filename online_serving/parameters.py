"""The bandit's parameters in memory: what requests score with.

parameters = base of the namespace + the rows of every partition. Nothing is ever counted here: changes that
come are added to what their partition had. Rows of items that the snapshot does not have yet are remembered and take
effect when the item appears.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_store.graph import Graph
from feature_store.sums import COLUMNS, ITEM, Rows, Sums
from online_serving.growing import GrowingRows
from streaming.bandit.diag_linucb import Table

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Parameters:
    """Base and partitions of one namespace over one graph, which may grow meanwhile. Used from one thread at a time."""

    def __init__(self, graph: Graph, size: int, base: Rows, offsets: Sequence[int]) -> None:
        """size: items of the graph to hold. offsets: per partition, the next log offset that the base does not hold."""
        self._graph = graph
        self._parts = [Sums() for _ in offsets]
        self._offsets = list(offsets)
        self._edges: GrowingRows[np.float64] = GrowingRows(np.zeros((0, COLUMNS)))
        self._items: GrowingRows[np.float64] = GrowingRows(np.zeros((0, COLUMNS)))
        self._total = np.zeros(COLUMNS)
        self._base = Sums.of(base)
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

    def apply(self, partition: int, offset: int, changes: Rows) -> None:
        """Adds what has changed in a partition, up to the log offset."""
        self._parts[partition].merge(changes)
        self._add(changes, changes.values)
        self._offsets[partition] = offset

    def reload(self, partition: int, offset: int, rows: Rows) -> None:
        """Replaces everything known of a partition."""
        before = self._parts[partition].rows()
        self._add(before, -before.values)
        self._parts[partition] = Sums()
        self.apply(partition, offset, rows)

    def extend(self, size: int) -> None:
        """Takes in the items that were appended to the graph, up to `size` items in all."""
        first = len(self._items.rows)
        names = self._graph.items[first:size]
        item_rows = [self._sum(name, ITEM) for name in names]
        edge_rows = [
            self._sum(name, int(cluster))
            for j, name in enumerate(names, first)
            for cluster in self._graph.clusters_of(j)
        ]
        if names:
            self._items.append(np.stack(item_rows))
            self._total += np.sum(item_rows, axis=0)
        if edge_rows:
            self._edges.append(np.stack(edge_rows))

    def _sum(self, item: str, cluster: int) -> Float64:
        row: Float64 = np.sum([part.get(item, cluster) for part in (self._base, *self._parts)], axis=0)
        return row

    def _add(self, rows: Rows, change: Float64) -> None:
        """Adds to the rows of the graph that are named; the others wait in their partition for extend()."""
        known = len(self._items.rows)
        items, item_change, edges, edge_change = [], [], [], []
        for i, (number, cluster) in enumerate(zip(rows.item, rows.cluster, strict=True)):
            j = self._graph.index.get(rows.items[number], known)
            if j >= known:
                continue
            if cluster == ITEM:
                items.append(j)
                item_change.append(i)
            elif (row := self._graph.row(int(cluster), j)) is not None:
                edges.append(row)
                edge_change.append(i)
        self._items.rows[items] += change[item_change]
        self._edges.rows[edges] += change[edge_change]
        self._total += change[item_change].sum(axis=0)
