"""How rows of sums lie in Redis: one field per item, with all rows that a partition has of it.

A field's value is, little endian, n clusters as int32 (ascending, so that the item's own row comes first) and then n
rows of five float64: 44 n bytes.
"""

from collections.abc import Mapping

import numba
import numpy as np

from feature_store.sums import COLUMNS, NO_ROWS, Rows

_WORDS = 1 + 2 * COLUMNS  # of 32 bits, per row


def pack(rows: Rows) -> dict[str, bytes]:
    """The fields of rows that lie item after item, in the order of rows.items, clusters ascending within an item."""
    ends = np.cumsum(np.bincount(rows.item, minlength=len(rows.items)))
    words = np.empty(_WORDS * len(rows.item), np.int32)
    _pack(ends, rows.cluster, np.ascontiguousarray(rows.values).view(np.int32), words)
    packed, bounds = words.tobytes(), (4 * _WORDS * ends).tolist()
    return {name: packed[a:b] for name, a, b in zip(rows.items, [0, *bounds], bounds, strict=False)}


def unpack(fields: Mapping[bytes, bytes]) -> Rows:
    """Reads what pack wrote, fields in any order."""
    if not fields:
        return NO_ROWS
    counts = np.fromiter(map(len, fields.values()), np.int64) // (4 * _WORDS)
    words = np.frombuffer(b"".join(fields.values()), np.int32)
    ends = np.cumsum(counts)
    cluster = np.empty(ends[-1], np.int32)
    values = np.empty((ends[-1], COLUMNS))
    _unpack(ends, words, cluster, values.view(np.int32))
    item = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return Rows([name.decode() for name in fields], item, cluster, values)


@numba.njit(cache=True)
def _pack(ends, cluster, values, words):  # type: ignore[no-untyped-def]
    first = 0
    for end in ends:
        at = _WORDS * first
        for i in range(first, end):
            words[at + i - first] = cluster[i]
            into = at + (end - first) + 2 * COLUMNS * (i - first)
            words[into : into + 2 * COLUMNS] = values[i]
        first = end


@numba.njit(cache=True)
def _unpack(ends, words, cluster, values):  # type: ignore[no-untyped-def]
    first = 0
    for end in ends:
        at = _WORDS * first
        for i in range(first, end):
            cluster[i] = words[at + i - first]
            source = at + (end - first) + 2 * COLUMNS * (i - first)
            values[i] = words[source : source + 2 * COLUMNS]
        first = end
