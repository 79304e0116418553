"""The bandit's parameters in memory: what requests score with.

parameters = base of the namespace + the rows of every partition. They are one table: what a partition sends are
changes, which are added, and nothing is kept of where a sum came from. Rows of items that the graph does not have yet
wait, and take effect when the item appears; rows of edges that the graph lacks are dropped.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.decay import NOTHING_FADES, Decay
from feature_store.graph import Graph, find_row
from feature_store.growing import GrowingRows
from feature_store.sums import COLUMNS, ITEM, NO_ROWS, N, Rows
from streaming.bandit.diag_linucb import Table
from streaming.bandit.prior import FIRST_FIT, Prior, fit, refit_at

_DROPPED = -1
_ROOM, _LEAST_ROOM = 8, 10_000  # for an eighth more rows, or for these
_NOTHING = np.zeros(0, np.int64)


class Located(NamedTuple):
    """Rows of sums and where they are added: looking that up takes several times as long as adding."""

    row: Int64  # (n,) an edge's row; -2 - j for the own row of item j; -1 for an edge that the graph lacks
    values: Float64  # (n, 5)
    unknown: Rows  # of items that the graph does not have


class Parameters:
    """Base and partitions of one namespace over one graph. Everything but `located` is called from one thread at a
    time."""

    def __init__(
        self,
        graph: Graph,
        base: Iterable[Rows],
        offsets: Sequence[int],
        decay: Decay = NOTHING_FADES,
        unknown: Int64 = _NOTHING,
    ) -> None:
        """base: in parts, because nothing of it is kept. offsets: per partition, the next log offset that the base does
        not hold. decay: the namespace's. unknown: positions of the items that training knew nothing of; those that
        the graph grows by are such items too."""
        self._graph = graph
        self._offsets = list(offsets)
        # Room for some more: the first live items must not copy everything.
        self._edges, self._items = (
            GrowingRows(np.zeros((used + max(used // _ROOM, _LEAST_ROOM), COLUMNS)), used=used)
            for used in (graph.n_edges, graph.size)
        )
        for rows in (self._edges.rows, self._items.rows):
            rows.fill(0.0)  # the system clears memory when it is first written to: now, not when a request waits
        self._total = np.zeros(COLUMNS)
        self._waiting: dict[str, dict[int, Float64]] = {}  # item -> cluster -> row
        self._new = GrowingRows(np.zeros(graph.size, np.bool_))
        self._new.rows[unknown] = True
        self._prior = Prior.unknown()
        self._decay = decay
        self._refit_at = 0.0  # in units of the sums, which only grow: fading changes all of them alike
        for part in base:
            self.add(self.located(part))

    @property
    def offsets(self) -> list[int]:
        """Per partition, the next log offset that the parameters do not hold."""
        return list(self._offsets)

    @property
    def graph(self) -> Graph:
        """Whose rows the table has."""
        return self._graph

    def table(self, now: int) -> Table:
        """The parameters by row number of the graph, for a reader at a time (ms since the epoch). A view: it changes
        with the next apply."""
        trial = self._decay.trial(now)
        return Table(
            self._graph.adjacency, self._edges.rows, self._items.rows, self._new.rows, self._total, self._prior, trial
        )

    def located(self, rows: Rows) -> Located:
        """The rows, ready to be applied. May be called from any thread."""
        graph = self._graph
        place = graph.positions(rows.items)
        item = place[rows.item]
        row = np.empty(len(item), np.int64)
        _locate(item, rows.cluster, graph.adjacency, graph.item_start, graph.edge_cluster, row)
        return Located(row, rows.values, _of_items(rows, place < 0))

    def apply(self, partition: int, offset: int, changes: Located) -> None:
        """Adds what has changed in a partition, up to the log offset."""
        self.add(changes)
        self._offsets[partition] = offset

    def add(self, changes: Located) -> None:
        """Adds some of what has changed in a partition; `apply` comes with the rest."""
        _add(changes.row, changes.values, self._edges.rows, self._items.rows, self._total)
        unknown = changes.unknown
        if not len(unknown.item):
            return
        if (self._graph.positions(unknown.items) >= 0).any():  # the graph has grown since they were looked up
            self.add(self.located(unknown))
            return
        for item, cluster, values in zip(unknown.item.tolist(), unknown.cluster.tolist(), unknown.values, strict=True):
            row = self._waiting.setdefault(unknown.items[item], {}).setdefault(cluster, np.zeros(COLUMNS))
            row += values

    def extend(self, graph: Graph) -> None:
        """Goes over to a graph that grew out of the present one; a row of zeros for each edge and item more. Raises
        InvalidInput if it did not."""
        if not graph.continues(self._graph):
            raise InvalidInput("These parameters belong to another graph than the one they are to go over to.")
        first = self._graph.size
        if graph.size == first:
            return
        self._edges.append(np.zeros((graph.n_edges - self._graph.n_edges, COLUMNS)))
        self._items.append(np.zeros((graph.size - first, COLUMNS)))
        self._new.append(np.ones(graph.size - first, np.bool_))
        self._graph = graph  # last: `located` must not name rows that are not there yet
        for name in self._waiting.keys() & set(graph.ids(range(first, graph.size))):
            rows = self._waiting.pop(name)
            clusters, values = np.array(list(rows), np.int32), np.stack(list(rows.values()))
            self.add(self.located(Rows([name], np.zeros(len(rows), np.int32), clusters, values)))

    def refit_due(self, now: int) -> bool:
        """Whether there are so many more trials than at the last fit that the prior should be fitted anew."""
        return bool(self._total[N] >= max(self._refit_at, FIRST_FIT * self._decay.trial(now)))

    def fitted(self, table: Table) -> Prior:
        """A prior fitted to the sums of a table. May be called from any thread, which it keeps busy for long: .5 s for
        3M edges."""
        return fit(*table.rows(), table.total, table.trial_weight)

    def adopt(self, prior: Prior, table: Table) -> None:
        """Scores with a prior that was fitted to a table from now on."""
        self._prior = prior
        self._refit_at = table.trial_weight * refit_at(table.total[N] / table.trial_weight)

    def refit(self, now: int) -> None:
        """Fits the prior anew if that is due, at once."""
        if self.refit_due(now):
            table = self.table(now)
            self.adopt(self.fitted(table), table)


def _of_items(rows: Rows, named: Bool) -> Rows:
    """The rows of those of the items (items,) that are named."""
    if not named.any():
        return NO_ROWS
    chosen = named[rows.item]
    number = np.cumsum(named, dtype=np.int32) - 1
    items = [rows.items[k] for k in np.flatnonzero(named).tolist()]
    return Rows(items, number[rows.item[chosen]], rows.cluster[chosen], rows.values[chosen])


@numba.njit(cache=True, nogil=True)
def _locate(item, cluster, adjacency, item_start, edge_cluster, row):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills row (n,) as Located has it, from item (n,), the index in the graph or -1, and cluster (n,)."""
    for i in range(len(item)):
        j = item[i]
        if j < 0:
            row[i] = _DROPPED
        elif cluster[i] == ITEM:
            row[i] = -2 - j
        else:
            row[i] = find_row(adjacency, item_start, edge_cluster, j, cluster[i])


@numba.njit(cache=True, nogil=True)
def _add(row, added, edges, items, total):  # type: ignore[no-untyped-def]  # numba infers it
    for i in range(len(row)):
        if row[i] >= 0:
            edges[row[i]] += added[i]
        elif row[i] != _DROPPED:
            items[-2 - row[i]] += added[i]
            total += added[i]
