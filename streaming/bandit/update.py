"""Diag-LinUCB's update: from trials to what they add to rows of sums.

A share of a trial is (served, trials, reward, squared): (1, 0, 0, 0) when an item is served, (0, 1, r, r^2) when the
trial is resolved, differences of these when something is taken back or corrected. For an item of which e was expected,
shown in a context with weights w_c, it adds (Online Matching, Eqs. 7-9: d += w^2, b += w r)

    to the item's row        (served, trials, reward, squared, e)
    to every edge's row      (w^2 served, w^2 trials, w trials, w reward, w e)

Shares are collected as columns and turned into rows by one call of a compiled kernel.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Float64, Int32
from feature_store.sums import COLUMNS, ITEM


class Additions(NamedTuple):
    """What is to be added to rows, in order."""

    item: Int32  # (n,) item numbers
    cluster: Int32  # (n,)
    values: Float64  # (n, 5)


class Shares:
    """Shares of trials, collected until they are turned into rows."""

    def __init__(self) -> None:
        self._items = array("q")
        self._expected = array("d")
        self._edges = array("q")
        self._clusters = array("q")
        self._weights = array("d")
        self._share = array("d")
        self._ends = array("q")  # per call of add: of its items, of its clusters
        self._most = 0

    def __len__(self) -> int:
        """An upper bound of the number of rows they become."""
        return self._most

    def add(
        self,
        items: Sequence[int],
        expected: Sequence[float],
        edges: Sequence[int],
        clusters: Sequence[int],
        weights: Sequence[float],
        share: Sequence[float],
    ) -> None:
        """Adds the same share for items shown in one context: item numbers, by how much what was expected of them
        changes, and edge masks (n,), clusters and weights (K,). Bit k of an edge mask: the item has an edge to
        clusters[k]."""
        self._items.extend(items)
        self._expected.extend(expected)
        self._edges.extend(edges)
        self._clusters.extend(clusters)
        self._weights.extend(weights)
        self._share.extend(share)
        self._ends.extend((len(self._items), len(self._clusters)))
        self._most += len(items) * (1 + len(clusters))

    def additions(self) -> Additions:
        """What all of them add to rows, in the order of add."""
        item = np.empty(self._most, np.int32)
        cluster = np.empty(self._most, np.int32)
        values = np.empty((self._most, COLUMNS))
        n = _expand(
            np.frombuffer(self._items, np.int64),
            np.frombuffer(self._expected),
            np.frombuffer(self._edges, np.int64),
            np.frombuffer(self._clusters, np.int64),
            np.frombuffer(self._weights),
            np.frombuffer(self._share).reshape(-1, 4),
            np.frombuffer(self._ends, np.int64).reshape(-1, 2),
            item,
            cluster,
            values,
        )
        return Additions(item[:n], cluster[:n], values[:n])


@numba.njit(cache=True)
def _expand(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    items, expected, edges, clusters, weights, shares, ends, item, cluster, values
):
    n, first, first_cluster = 0, 0, 0
    for group in range(len(ends)):
        end, end_cluster = ends[group]
        served, trials, reward, squared = shares[group]
        for i in range(first, end):
            item[n], cluster[n] = items[i], ITEM
            values[n, 0], values[n, 1], values[n, 2] = served, trials, reward
            values[n, 3], values[n, 4] = squared, expected[i]
            n += 1
            for k in range(end_cluster - first_cluster):
                if edges[i] >> k & 1:
                    w = weights[first_cluster + k]
                    item[n], cluster[n] = items[i], clusters[first_cluster + k]
                    values[n, 0], values[n, 1], values[n, 2] = w * w * served, w * w * trials, w * trials
                    values[n, 3], values[n, 4] = w * reward, w * expected[i]
                    n += 1
        first, first_cluster = end, end_cluster
    return n
