"""A number by which processes are compared: those that have learnt the same have the same one."""

import zlib
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Float64
from feature_store.graph import Graph
from feature_store.sums import COLUMNS, N
from streaming.bandit.diag_linucb import Table

_BITS = 30  # of the largest sum that are looked at: the others depend on the order in which it was added up
_COLUMN = np.array([(2 * column + 1) * 0x9E3779B97F4A7C15 % 2**64 for column in range(COLUMNS)], dtype=np.uint64)


def digest(graph: Graph, table: Table) -> str:
    """16 hexadecimal digits, of the sums of items and of their edges. table: over the graph.

    Neither the order of the items matters nor that in which changes came. A difference of a thousandth of a trial shows
    until there are a million of them.
    """
    name = np.fromiter((zlib.crc32(item.encode()) + 1 for item in graph.items), np.uint64, graph.size)
    scale = int(np.ceil(np.log2(max(table.total[N], 1.0))))
    step = 2.0 ** (scale - _BITS)
    of_edge = np.concatenate([table.adjacency.items, table.adjacency.appended])
    of_items = _mixed(table.items, step) * name
    of_edges = _mixed(table.edges, step) * name[of_edge]
    sums = int(of_items.sum(dtype=np.uint64)), int(of_edges.sum(dtype=np.uint64)), scale
    return blake2b(repr(sums).encode(), digest_size=8).hexdigest()


def _mixed(rows: Float64, step: float) -> NDArray[np.uint64]:
    """(n,) of rows (n, 5)."""
    whole = np.rint(rows / step).astype(np.int64).view(np.uint64)
    mixed: NDArray[np.uint64] = (whole * _COLUMN).sum(axis=1, dtype=np.uint64)
    return mixed
