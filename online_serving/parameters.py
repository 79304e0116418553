"""The bandit's parameters in memory: what requests score with.

parameters = base of the namespace + the rows of every partition. They are one table: what a partition sends are
changes, which are added, and nothing is kept of where a sum came from. Rows of items that the snapshot does not have
yet wait, and take effect when the item appears; rows of edges that the graph lacks are dropped.
"""

from collections.abc import Iterable, Sequence

import numba
import numpy as np

from feature_store.decay import NOTHING_FADES, Decay
from feature_store.graph import Graph, find_row
from feature_store.sums import COLUMNS, ITEM, Float64, N, Rows
from online_serving.growing import GrowingRows
from streaming.bandit.diag_linucb import Table
from streaming.bandit.prior import FIRST_FIT, Prior, fit, refit_at
from streaming.settings import BanditSettings


class Parameters:
    """Base and partitions of one namespace over one graph, which may grow meanwhile. Used from one thread at a time."""

    def __init__(
        self,
        graph: Graph,
        size: int,
        base: Iterable[Rows],
        offsets: Sequence[int],
        bandit: BanditSettings,
        decay: Decay = NOTHING_FADES,
    ) -> None:
        """size: items of the graph to hold. base: in parts, because nothing of it is kept. offsets: per partition, the
        next log offset that the base does not hold. bandit: what the prior is fitted with. decay: the namespace's."""
        self._graph = graph
        self._offsets = list(offsets)
        # Room for as many again, which costs nothing until it is used: the first live item must not copy everything.
        edges = int(graph.item_start[size])
        self._edges = GrowingRows(np.zeros((2 * edges, COLUMNS)), used=edges)
        self._items = GrowingRows(np.zeros((2 * size, COLUMNS)), used=size)
        self._total = np.zeros(COLUMNS)
        self._waiting: dict[str, dict[int, Float64]] = {}  # item -> cluster -> row
        self._bandit = bandit
        self._prior = Prior.unknown(graph.clusters)
        self._decay = decay
        self._refit_at = 0.0  # in units of the sums, which only grow: fading changes all of them alike
        for rows in base:
            self._add(rows)

    @property
    def offsets(self) -> list[int]:
        """Per partition, the next log offset that the parameters do not hold."""
        return list(self._offsets)

    def table(self, now: int) -> Table:
        """The parameters by row number of the graph, for a reader at a time (ms since the epoch). A view: it changes
        with the next apply or extend."""
        trial = self._decay.trial(now)
        if self._total[N] >= max(self._refit_at, FIRST_FIT * trial):
            self._prior = fit(
                self._graph.adjacency, self._edges.rows, self._items.rows, self._total,
                self._bandit.item_prior, self._bandit.cluster_prior, trial,
            )  # fmt: skip
            self._refit_at = trial * refit_at(self._total[N] / trial)
        return Table(self._graph.adjacency, self._edges.rows, self._items.rows, self._total, self._prior, trial)

    def apply(self, partition: int, offset: int, changes: Rows) -> None:
        """Adds what has changed in a partition, up to the log offset."""
        self._add(changes)
        self._offsets[partition] = offset

    def extend(self, size: int) -> None:
        """Takes in the items that were appended to the graph, up to `size` items in all."""
        first = len(self._items.rows)
        if size == first:
            return
        self._items.append(np.zeros((size - first, COLUMNS)))
        self._edges.append(np.zeros((self._graph.item_start[size] - len(self._edges.rows), COLUMNS)))
        for name in self._waiting.keys() & set(self._graph.items[first:size]):
            rows = self._waiting.pop(name)
            clusters, values = np.array(list(rows), np.int32), np.stack(list(rows.values()))
            self._add(Rows([name], np.zeros(len(rows), np.int32), clusters, values))

    def _add(self, rows: Rows) -> None:
        index, known = self._graph.index, len(self._items.rows)
        place = np.fromiter((index.get(name, known) for name in rows.items), np.int64, len(rows.items))
        item = place[rows.item]
        _add(
            item,
            rows.cluster,
            rows.values,
            self._graph.adjacency,
            self._graph.item_start,
            self._graph.edge_cluster,
            self._edges.rows,
            self._items.rows,
            self._total,
        )
        for i in np.flatnonzero(item >= known).tolist():
            row = self._waiting.setdefault(rows.items[rows.item[i]], {}).setdefault(
                int(rows.cluster[i]), np.zeros(COLUMNS)
            )
            row += rows.values[i]


@numba.njit(cache=True)
def _add(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    item, cluster, added, adjacency, item_start, edge_cluster, edges, items, total
):
    """Adds to the rows of known items: item (n,) index in the graph, cluster (n,), added (n, 5)."""
    for i in range(len(item)):
        j = item[i]
        if j >= len(items):
            continue
        if cluster[i] == ITEM:
            items[j] += added[i]
            total += added[i]
            continue
        row = find_row(adjacency, item_start, edge_cluster, j, cluster[i])
        if row >= 0:
            edges[row] += added[i]
