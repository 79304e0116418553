"""From the clusters of one release to those of another: where the users of each are now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_store.arrays import Float64, Int32, Int64

_LEAST = 1e-3  # of a row that came about over a release between: no decision is folded onto less (open_decisions.py)


@dataclass(frozen=True, eq=False)
class Translation:
    """A row-stochastic matrix (C clusters there, C' here) of few entries, by row.

    Row c has weight[start[c]:start[c + 1]] in the columns cluster[...]; one without entries, a cluster of which nobody
    is known, is `rest` (C',).
    """

    start: Int64
    cluster: Int64
    weight: Float64
    rest: Float64

    @classmethod
    def of(cls, matrix: Float64) -> "Translation":
        """A matrix (C, C') that has all its entries."""
        row, column = np.nonzero(matrix)
        start = np.searchsorted(row, np.arange(len(matrix) + 1)).astype(np.int64)
        return cls(start, column.astype(np.int64), matrix[row, column], np.zeros(matrix.shape[1]))

    @property
    def clusters(self) -> int:
        """C, the clusters there."""
        return len(self.start) - 1

    def rows(self, clusters: Sequence[int] | Int32 | Int64) -> Float64:
        """The rows (n, C') of n clusters."""
        found = np.zeros((len(clusters), len(self.rest)))
        for row, cluster in zip(found, clusters, strict=True):
            self._add(row, int(cluster), 1.0)
        return found

    def then(self, following: "Translation") -> "Translation":
        """By way of the release between: the matrix product. Entries below a thousandth are left out, and the others
        make up for them."""
        kept, weights = [], []
        for cluster in range(self.clusters):
            part = slice(self.start[cluster], self.start[cluster + 1])
            row = following.spread(self.cluster[part], self.weight[part])
            some = np.flatnonzero(row >= _LEAST)
            kept.append(some)
            weights.append(row[some] / row[some].sum() if len(some) else row[some])
        start = np.cumsum([0, *map(len, kept)])
        rest = following.spread(np.flatnonzero(self.rest), self.rest[self.rest > 0])
        return Translation(start, np.concatenate([start[:0], *kept]), np.concatenate([rest[:0], *weights]), rest)

    def save(self, path: Path) -> None:
        """Writes it."""
        with path.open("wb") as file:
            np.savez(file, start=self.start, cluster=self.cluster, weight=self.weight, rest=self.rest)

    @classmethod
    def load(cls, path: Path) -> "Translation":
        """Reads what save wrote, or all entries of a matrix, as earlier versions did, from `.npy` beside it."""
        if not path.exists():
            return cls.of(np.load(path.with_suffix(".npy"), allow_pickle=False))
        with np.load(path, allow_pickle=False) as found:
            return cls(found["start"], found["cluster"], found["weight"], found["rest"])

    def spread(self, clusters: Int64, weights: Float64) -> Float64:
        """(C',): the weighted sum of the rows of n clusters; weights (n,)."""
        found = np.zeros(len(self.rest))
        for cluster, weight in zip(clusters.tolist(), weights.tolist(), strict=True):
            self._add(found, cluster, weight)
        return found

    def _add(self, row: Float64, cluster: int, weight: float) -> None:
        part = slice(self.start[cluster], self.start[cluster + 1])
        if part.start == part.stop:
            row += weight * self.rest
        else:
            row[self.cluster[part]] += weight * self.weight[part]
