"""Rows of sums: everything the bandit knows, as numbers that add up.

Every row holds five float64. An edge row is (served, d, s, b, f): `served` = sum of w^2 over the trials served; over
the trials resolved, d = sum w^2, s = sum w, b = sum w r and f = sum w e, with w the weight of the edge's cluster in the
user's context, r the reward and e what was expected of it. An item row is (served, n, reward, reward_sq, expected), the
same sums with w = 1. Sums are additive: over events, batches, partitions and time.

Rows travel as columns (`Rows`) and are added up in a hash table (`Sums`); no row has a Python object of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrays import Float64, Int32, Int64
from feature_store.strings import to_strings

ITEM = -1  # in place of a cluster: the item's own row
COLUMNS = 5
SERVED, D, S, B, F = range(COLUMNS)  # edge rows
N, REWARD, REWARD_SQ, EXPECTED = range(1, COLUMNS)  # item rows, after SERVED
_FIRST_CAPACITY = 64
_ROWS_AT_ONCE = 1 << 18  # in a file
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, vol. 3, 6.4)


class Rows(NamedTuple):
    """Rows of sums as columns."""

    items: list[str]  # distinct ids
    item: Int32  # (n,) index into items
    cluster: Int32  # (n,) ITEM for the item's own row
    values: Float64  # (n, 5)

    def times(self, factor: float) -> "Rows":
        """The same rows with every sum that many times as large."""
        return self._replace(values=factor * self.values)

    def parts(self, most: int) -> list["Rows"]:
        """The rows in parts of at most so many, in their order; one empty part if there are none."""
        return [
            self._replace(
                item=self.item[i : i + most], cluster=self.cluster[i : i + most], values=self.values[i : i + most]
            )
            for i in range(0, max(1, len(self.item)), most)
        ]

    @classmethod
    def chain(cls, parts: Sequence["Rows"]) -> "Rows":
        """Parts one behind the other: a row that several of them name comes several times."""
        numbers = Numbers()
        item = [numbers.of(part.items)[part.item] for part in parts]
        return cls(
            numbers.names,
            np.concatenate([NO_ROWS.item, *item]),
            np.concatenate([NO_ROWS.cluster, *(part.cluster for part in parts)]),
            np.concatenate([NO_ROWS.values, *(part.values for part in parts)]),
        )

    def save(self, path: Path) -> None:
        """Writes one Parquet file: item, cluster, and the row as five doubles. Each part of it names its own items:
        with all of them in each, a million would be read sixteen times."""
        parts = [_table(part) for part in self.parts(_ROWS_AT_ONCE)]
        with pq.ParquetWriter(path, parts[0].schema, use_dictionary=["item"]) as file:
            for table in parts:
                file.write_table(table)

    @classmethod
    def read(cls, path: Path) -> Iterator["Rows"]:
        """Reads what save wrote in parts, so that never all of it is held at once."""
        with pq.ParquetFile(path, read_dictionary=["item"]) as file:
            groups = range(file.num_row_groups) if file.metadata.num_rows else []  # no rows are one group without any
            for group in groups:  # in one thread: each of Arrow's keeps memory to itself
                table = file.read_row_group(group, use_threads=False).unify_dictionaries().combine_chunks()
                item = table.column("item").chunk(0)
                yield cls(
                    to_strings(item.dictionary),
                    item.indices.to_numpy().astype(np.int32),
                    table.column("cluster").to_numpy().astype(np.int32),
                    np.column_stack([table.column(str(i)).to_numpy() for i in range(COLUMNS)]),
                )

    @classmethod
    def load(cls, path: Path) -> "Rows":
        """Reads what save wrote."""
        parts = list(cls.read(path)) or [NO_ROWS]
        numbers = Numbers()
        item = np.concatenate([numbers.of(part.items)[part.item] for part in parts])
        return cls(
            numbers.names,
            item,
            np.concatenate([part.cluster for part in parts]),
            np.concatenate([part.values for part in parts]),
        )


NO_ROWS = Rows([], np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, COLUMNS)))


def _table(rows: Rows) -> pa.Table:
    used, item = np.unique(rows.item, return_inverse=True)
    names = pa.array([rows.items[k] for k in used.tolist()], pa.string())
    columns = {"item": pa.DictionaryArray.from_arrays(pa.array(item.astype(np.int32)), names)}
    columns["cluster"] = pa.array(rows.cluster)
    columns |= {str(i): pa.array(np.ascontiguousarray(rows.values[:, i])) for i in range(COLUMNS)}
    return pa.table(columns)


class Numbers(dict[str, int]):
    """Numbers of item ids, 0, 1, 2, ... in order of arrival: an unknown id gets the next one."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self.names)
        self.names.append(name)
        return number

    def of(self, names: Iterable[str]) -> Int32:
        """The numbers of several ids."""
        return np.fromiter(map(self.__getitem__, names), np.int32)


class Sums:
    """A table that rows are added to. Grows as rows appear, and keeps them in their order of arrival."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        """numbers: item numbers shared with another table."""
        self.numbers = Numbers() if numbers is None else numbers
        self._size = 0
        self._index: Int32 = np.full(2 * _FIRST_CAPACITY, -1, np.int32)  # open addressing: place of a row, or -1
        self._keys: Int64 = np.zeros(_FIRST_CAPACITY, np.int64)
        self._values: Float64 = np.zeros((_FIRST_CAPACITY, COLUMNS))

    @classmethod
    def of(cls, *parts: Rows) -> "Sums":
        """The sum of rows: of partitions, say, or of a base and a fold."""
        sums = cls()
        for part in parts:
            sums.merge(part)
        return sums

    def __len__(self) -> int:
        return self._size

    def clear(self) -> None:
        """Forgets all rows, and keeps the room for as many."""
        self._size = 0
        self._index.fill(-1)

    def add(self, item: Int32, cluster: Int32, values: Float64) -> None:
        """Adds to rows, which begin at zeros: item numbers (n,), clusters (n,), values (n, 5); repeated ones add up
        in their order."""
        self._reserve(self._size + len(item))
        self._size = _add(item, cluster, values, self._index, self._keys, self._values, self._size)

    def merge(self, rows: Rows) -> None:
        """Adds all rows."""
        self.add(self.numbers.of(rows.items)[rows.item], rows.cluster, rows.values)

    def get(self, item: str, cluster: int = ITEM) -> Float64:
        """One row, (5,), a copy; zeros for an unknown one."""
        key = Rows([item], np.zeros(1, np.int32), np.array([cluster], np.int32), NO_ROWS.values)
        return self.select(key).reshape(COLUMNS)

    def select(self, keys: Rows) -> Float64:
        """The values here of the rows that the keys name, (n, 5); zeros for unknown ones."""
        known = np.array([self.numbers.get(name, -1) for name in keys.items], np.int32)
        selected = np.zeros((len(keys.item), COLUMNS))
        _select(known[keys.item], keys.cluster, self._index, self._keys, self._values, selected)
        return selected

    def rows(self) -> Rows:
        """All rows, in order of arrival."""
        keys = self._keys[: self._size]
        numbers = keys >> 32
        used = np.zeros(len(self.numbers), dtype=bool)
        used[numbers] = True
        item = (np.cumsum(used) - 1)[numbers].astype(np.int32)
        names = self.numbers.names
        cluster = ((keys & 0xFFFFFFFF) - 1).astype(np.int32)
        return Rows([names[k] for k in np.flatnonzero(used)], item, cluster, self._values[: self._size].copy())

    def _reserve(self, rows: int) -> None:
        """Makes room for that many rows."""
        if rows <= len(self._keys):
            return
        capacity = max(rows, 2 * len(self._keys))
        self._keys = np.concatenate([self._keys, np.zeros(capacity - len(self._keys), np.int64)])
        self._values = np.concatenate([self._values, np.zeros((capacity - len(self._values), COLUMNS))])
        self._index = np.full(2 << (capacity - 1).bit_length(), -1, np.int32)
        _build_index(self._keys, self._index, self._size)


@numba.njit(cache=True, inline="always")
def _find(key, index, keys):  # type: ignore[no-untyped-def]  # numba infers it
    """Where in the index a key is, or would be."""
    mask = np.uint64(len(index) - 1)
    hashed = np.uint64(key) * _GOLDEN
    at = (hashed ^ (hashed >> np.uint64(32))) & mask
    while index[at] >= 0 and keys[index[at]] != key:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(cache=True)
def _build_index(keys, index, size):  # type: ignore[no-untyped-def]  # numba infers it
    for place in range(size):
        index[_find(keys[place], index, keys)] = place


@numba.njit(cache=True)
def _add(item, cluster, added, index, keys, values, size):  # type: ignore[no-untyped-def]  # numba infers it
    for i in range(len(item)):
        key = (np.int64(item[i]) << 32) | (np.int64(cluster[i]) + 1)
        at = _find(key, index, keys)
        place = index[at]
        if place < 0:
            place = np.int32(size)
            size += 1
            index[at] = place
            keys[place] = key
            values[place] = 0.0
        for column in range(COLUMNS):
            values[place, column] += added[i, column]
    return size


@numba.njit(cache=True)
def _select(item, cluster, index, keys, values, selected):  # type: ignore[no-untyped-def]  # numba infers it
    for i in range(len(item)):
        key = (np.int64(item[i]) << 32) | (np.int64(cluster[i]) + 1)
        place = index[_find(key, index, keys)]
        if place >= 0:
            selected[i] = values[place]
