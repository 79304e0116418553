"""What items have of each attribute, in columns, so that a filter looks at all items at once."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.catalogue import Item

Column = NDArray[Any]


class Kind(Enum):
    """What a value is: its column's type, and what stands there for an item without one."""

    NUMBER = (np.float64, np.nan)
    TEXT = (np.int32, -1)  # a code
    FLAG = (np.int8, -1)  # 0 or 1


_KINDS = {str: Kind.TEXT, bool: Kind.FLAG, int: Kind.NUMBER, float: Kind.NUMBER}


class _Key(NamedTuple):
    name: str
    kind: Kind


class Attributes:
    """Columns by attribute and kind of value; never changed, but for codes of texts, which are only added."""

    def __init__(
        self, columns: Mapping[_Key, Column] | None = None, codes: dict[str, dict[str, int]] | None = None
    ) -> None:
        self._columns = columns or {}
        self._codes = {} if codes is None else codes  # attribute -> text -> code; shared by all that came out of one

    def with_items(self, changed: Iterable[tuple[int, Item | None]]) -> "Attributes":
        """After changes of the items at these positions, None: deleted. Only columns that change are copied."""
        entries = dict(changed)
        values = self._values(entries)
        columns = dict(self._columns)
        places = np.fromiter(entries, np.int64, len(entries))
        for key, column in self._columns.items():
            held = places[places < len(column)]
            if key in values or present(column[held], key.kind).any():
                columns[key] = column.copy()
                columns[key][held] = key.kind.value[1]
        for key, (at, found) in values.items():
            columns[key] = _grown(columns.get(key), key.kind, max(at) + 1)
            columns[key][at] = found
        return Attributes(columns, self._codes)

    def _values(self, entries: Mapping[int, Item | None]) -> dict[_Key, tuple[list[int], list[float | int]]]:
        """By attribute and kind: positions, and the values there; of texts the codes."""
        found: dict[tuple[str, type], tuple[list[int], list[float | int]]] = {}
        for position, item in entries.items():
            for name, value in item.attributes.items() if item else ():
                at, values = found.setdefault((name, type(value)), ([], []))
                at.append(position)
                values.append(self._code(name, value) if isinstance(value, str) else value)
        by_kind: dict[_Key, tuple[list[int], list[float | int]]] = {}
        for (name, kind), (at, values) in found.items():  # whole numbers and others are of one kind
            both = by_kind.setdefault(_Key(name, _KINDS[kind]), ([], []))
            both[0].extend(at)
            both[1].extend(values)
        return by_kind

    def numbers(self, name: str, size: int) -> Float64:
        """(size,) values, NaN where an item has no number of this name."""
        column: Float64 = self._column(name, Kind.NUMBER, size)
        return column

    def flags(self, name: str, size: int) -> NDArray[np.int8]:
        """(size,) 0 or 1, -1 where an item has no truth value of this name."""
        column: NDArray[np.int8] = self._column(name, Kind.FLAG, size)
        return column

    def is_one_of(self, name: str, texts: Iterable[str], size: int) -> Bool:
        """(size,) whether an item has one of these texts."""
        known = self._codes.get(name, {})
        wanted = np.zeros(len(known) + 1, np.bool_)  # the last place is that of -1
        wanted[[known[text] for text in texts if text in known]] = True
        found: Bool = wanted[self._column(name, Kind.TEXT, size)]
        return found

    def has(self, name: str, size: int) -> Bool:
        """(size,) whether an item has a value of this name, of any kind."""
        found = np.zeros(size, np.bool_)
        for kind in Kind:
            if _Key(name, kind) in self._columns:
                found |= present(self._column(name, kind, size), kind)
        return found

    def alike(self, name: str, positions: Int64) -> Int64:
        """(n,) a number for each item at these positions, the same for those with the same value of this name; -1 where
        there is none."""
        found, used = np.full(len(positions), -1), 0
        for kind in Kind:
            column = self._columns.get(_Key(name, kind), np.empty(0, kind.value[0]))
            held = np.flatnonzero(positions < len(column))
            held = held[present(column[positions[held]], kind)]
            values, numbers = np.unique(column[positions[held]], return_inverse=True)
            found[held] = used + numbers
            used += len(values)
        return found

    def _column(self, name: str, kind: Kind, size: int) -> Any:
        column = self._columns.get(_Key(name, kind))
        return column if column is not None and len(column) == size else _grown(column, kind, size)[:size]

    def _code(self, name: str, text: str) -> int:
        codes = self._codes.setdefault(name, {})
        return codes.setdefault(text, len(codes))


def present(column: Column, kind: Kind) -> Bool:
    """Where there is a value."""
    found: Bool = ~np.isnan(column) if kind is Kind.NUMBER else column >= 0
    return found


def _grown(column: Column | None, kind: Kind, size: int) -> Column:
    """The column with at least so many places."""
    dtype, nothing = kind.value
    held = np.empty(0, dtype) if column is None else column
    return held if len(held) >= size else np.concatenate([held, np.full(size - len(held), nothing, dtype)])
