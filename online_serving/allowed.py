"""Which items a request may be answered with, without a look at each of them.

A snapshot has one mask of what is available, and lends copies of it: a request closes what it leaves out, and opens it
again when it has been answered. So what a rule costs depends on the items that it names, not on the catalogue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Bool, Int64

Uint8 = NDArray[np.uint8]


class Allowed(NamedTuple):
    """Items by position."""

    mask: Bool  # (size,)
    packed: Uint8  # the same, eight to a byte, the first in the lowest bit
    left: int  # how many are allowed
    few: Int64 | None = None  # the allowed ones, ascending, if the request named what it wants

    @classmethod
    def of(cls, mask: Bool) -> "Allowed":
        """Of a mask (size,), looking at all of it."""
        return cls(mask, np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))


class Masks:
    """Lends masks that begin as what is available (size,), or as nothing. May be used from several threads."""

    def __init__(self, available: Bool) -> None:
        self.available = available
        self.count = int(np.count_nonzero(available))
        self._spare: dict[bool, list[tuple[Bool, Uint8]]] = {True: [], False: []}

    @contextmanager
    def lent(self) -> Iterator["Leaving"]:
        """What is available, to leave items out of."""
        with self._borrowed(True) as (mask, packed):
            leaving = Leaving(mask, packed, self.count)
            try:
                yield leaving
            finally:
                for positions in leaving.closed:
                    _set(mask, packed, positions, True)

    @contextmanager
    def only(self, positions: Int64) -> Iterator[Allowed]:
        """These items alone: distinct positions, ascending."""
        with self._borrowed(False) as (mask, packed):
            _set(mask, packed, positions, True)
            try:
                yield Allowed(mask, packed, len(positions), positions)
            finally:
                _set(mask, packed, positions, False)

    @contextmanager
    def _borrowed(self, available: bool) -> Iterator[tuple[Bool, Uint8]]:
        spare = self._spare[available]
        try:
            pair = spare.pop()
        except IndexError:
            mask = self.available.copy() if available else np.zeros(len(self.available), np.bool_)
            pair = mask, np.packbits(mask, bitorder="little")
        try:
            yield pair
        finally:
            spare.append(pair)


class Leaving:
    """A mask that items are left out of, one rule after the other."""

    def __init__(self, mask: Bool, packed: Uint8, count: int) -> None:
        self.closed: list[Int64] = []
        self._mask, self._packed = mask, packed
        self._left = count

    def leave_out(self, positions: Int64) -> int:
        """Leaves these items out, and says how many of them were allowed until then."""
        closed: Int64 = _close(self._mask, self._packed, positions)
        self.closed.append(closed)
        self._left -= len(closed)
        return len(closed)

    def among(self, positions: Int64) -> Int64:
        """Those of these items that are allowed: each once, ascending."""
        return self.still(np.unique(positions))

    def still(self, positions: Int64) -> Int64:
        """Those of these items that are allowed, in their order."""
        allowed: Int64 = positions[self._mask[positions]]
        return allowed

    @property
    def allowed(self) -> Allowed:
        """What is left."""
        return Allowed(self._mask, self._packed, self._left)


@numba.njit(cache=True, nogil=True)
def _close(mask, packed, positions):  # type: ignore[no-untyped-def]  # numba infers it
    closed, count = np.empty(len(positions), np.int64), 0
    for j in positions:
        if mask[j]:
            mask[j] = False
            packed[j >> 3] &= ~np.uint8(1 << (j & 7))
            closed[count] = j
            count += 1
    return closed[:count]


@numba.njit(cache=True, nogil=True)
def _set(mask, packed, positions, value):  # type: ignore[no-untyped-def]  # numba infers it
    for j in positions:
        mask[j] = value
        bit = np.uint8(1 << (j & 7))
        packed[j >> 3] = packed[j >> 3] | bit if value else packed[j >> 3] & ~bit
