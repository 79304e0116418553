"""Rows of sums: everything the bandit knows, as numbers that add up.

Every row holds five float64. An edge row is (served, d, s, b, f): `served` = sum of w^2 over the trials served; over
the trials resolved, d = sum w^2, s = sum w, b = sum w r and f = sum w p, with w the weight of the edge's cluster in the
user's context, r the reward and p the offline prediction. An item row is (served, n, reward, reward_sq, predicted),
the same sums with w = 1. Sums are additive: over events, batches, partitions and time.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

COLUMNS = 5
SERVED, D, S, B, F = range(COLUMNS)  # edge rows
N, REWARD, REWARD_SQ, PREDICTED = range(1, COLUMNS)  # item rows, after SERVED
_FIRST_CAPACITY = 64


def edge_key(cluster: int, item: str) -> str:
    """The key of an edge's row."""
    return f"{cluster}:{item}"


def item_key(item: str) -> str:
    """The key of an item's own row."""
    return f":{item}"


def split_key(key: str) -> tuple[int | None, str]:
    """(cluster, item) of an edge row's key, (None, item) of an item row's."""
    cluster, _, item = key.partition(":")
    return (int(cluster) if cluster else None), item


class Sums:
    """Rows of sums by key. Grows as keys appear; keys keep their order of arrival."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._rows: Float64 = np.zeros((_FIRST_CAPACITY, COLUMNS))

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def keys(self) -> list[str]:
        """All keys, in the order of rows()."""
        return list(self._slots)

    def rows(self) -> Float64:
        """All rows, (len, 5), a copy."""
        return self._rows[: len(self._slots)].copy()

    def get(self, key: str) -> Float64:
        """The row of a key, (5,), a copy; zeros for an unknown key."""
        slot = self._slots.get(key)
        return np.zeros(COLUMNS) if slot is None else self._rows[slot].copy()

    def select(self, keys: Sequence[str]) -> Float64:
        """The rows of known keys, (len(keys), 5), a copy. Raises KeyError for an unknown one."""
        return self._rows[[self._slots[key] for key in keys]]

    def add(self, key: str, served: float, a: float, b: float, c: float, d: float) -> None:
        """Adds to the row of a key, which begins at zeros."""
        slot = self._slot(key)  # first: it may move the rows
        row = self._rows[slot]
        row[0] += served
        row[1] += a
        row[2] += b
        row[3] += c
        row[4] += d

    def put(self, keys: Sequence[str], rows: Float64) -> None:
        """Replaces rows: keys (n,), rows (n, 5)."""
        slots = [self._slot(key) for key in keys]
        self._rows[slots] = rows

    def merge(self, other: "Sums") -> None:
        """Adds all rows of the other."""
        slots = [self._slot(key) for key in other.keys()]  # noqa: SIM118
        self._rows[slots] += other.rows()

    def copy(self) -> "Sums":
        """An independent copy."""
        twin = Sums()
        twin._slots = dict(self._slots)
        twin._rows = self._rows.copy()
        return twin

    def save(self, path: Path) -> None:
        """Writes one Parquet file: key, and the row as five doubles."""
        rows = self.rows()
        columns = {"key": pa.array(self.keys(), pa.string())}
        columns |= {str(i): pa.array(rows[:, i], pa.float64()) for i in range(COLUMNS)}
        pq.write_table(pa.table(columns), path)

    @classmethod
    def load(cls, path: Path) -> "Sums":
        """Reads what save wrote."""
        table = pq.read_table(path)
        sums = cls()
        rows = np.column_stack([table.column(str(i)).to_numpy() for i in range(COLUMNS)])
        sums.put(table.column("key").to_pylist(), rows.reshape(-1, COLUMNS))
        return sums

    def _slot(self, key: str) -> int:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = len(self._slots)
            if slot == len(self._rows):
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        return slot


def total(parts: Iterable[Sums]) -> Sums:
    """The sum of several: of partitions, say, or of a base and a fold."""
    result = Sums()
    for part in parts:
        result.merge(part)
    return result
