"""From an item to its place among the candidates, inside compiled code: a hash table by open addressing, small enough
for the first cache and sparse enough that one look is nearly always enough."""

import numba
import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, vol. 3, 6.4)
_SLOTS_EACH = 4


@numba.njit(cache=True)
def places(candidates):  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    """The table of distinct candidates (n,): slots, 2^k of them, that hold an index into the candidates or -1; and
    64 - k, by which a hash is shifted to a slot."""
    size, shift = 2, 63
    while size < _SLOTS_EACH * len(candidates):
        size, shift = 2 * size, shift - 1
    slots = np.full(size, -1, dtype=np.int32)
    for i in range(len(candidates)):
        at = (np.uint64(candidates[i]) * _GOLDEN) >> np.uint64(shift)
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & np.uint64(size - 1)
        slots[at] = i
    return slots, np.uint64(shift)


@numba.njit(cache=True)
def place(slots, shift, candidates, item):  # type: ignore[no-untyped-def]  # numba infers it
    """The index of an item among the candidates, -1 if it is not one of them."""
    at = (np.uint64(item) * _GOLDEN) >> shift
    while slots[at] >= 0 and candidates[slots[at]] != item:
        at = (at + np.uint64(1)) & np.uint64(len(slots) - 1)
    return slots[at]
