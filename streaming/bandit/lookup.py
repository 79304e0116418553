"""From an item to its place among the candidates, inside compiled code: a hash table by open addressing, small enough
for the first cache."""

import numba
import numpy as np

_GOLDEN = 2654435769  # 2^32 / golden ratio: Fibonacci hashing spreads consecutive item indexes


@numba.njit(cache=True)
def places(candidates):  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    """The table of distinct candidates (n,): a power of two of slots, at least twice as many as candidates; each holds
    an index into the candidates or -1."""
    size = 2
    while size < 2 * len(candidates):
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    for i in range(len(candidates)):
        at = _slot(candidates[i], size)
        while slots[at] >= 0:
            at = (at + 1) & (size - 1)
        slots[at] = i
    return slots


@numba.njit(cache=True)
def place(slots, candidates, item):  # type: ignore[no-untyped-def]
    """The index of an item among the candidates, -1 if it is not one of them."""
    at = _slot(item, len(slots))
    while slots[at] >= 0 and candidates[slots[at]] != item:
        at = (at + 1) & (len(slots) - 1)
    return slots[at]


@numba.njit(cache=True)
def _slot(item, size):  # type: ignore[no-untyped-def]
    return ((np.int64(item) * _GOLDEN) >> 16) & (size - 1)
