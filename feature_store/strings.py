"""Columns of text as Python strings."""

import pyarrow as pa

_AT_ONCE = 10_000


def to_strings(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """The values of a column of text. Other threads run meanwhile, which to_pylist() does not let them, half a second
    for a million values."""
    strings: list[str] = []
    for first in range(0, len(column), _AT_ONCE):
        strings += column.slice(first, _AT_ONCE).to_pylist()
    return strings
