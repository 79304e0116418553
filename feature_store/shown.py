"""What a user was shown, packed: seven bytes an item, five of a digest of its id and two of the day.

Another item has the same digest once in 10^12: of a million items and 500 shown ones it hides one that was not shown to
one user in two thousand.
"""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Int32, Int64
from feature_store.definitions import DAY_MS

ENTRY_BYTES = 7
_DIGEST_BYTES = 5

Digests = NDArray[np.uint64]


class Shown(NamedTuple):
    """Items that were shown, by digest."""

    packed: bytes  # oldest first

    def digests(self) -> Digests:
        """(n,) of the items."""
        entries = np.frombuffer(self.packed, np.uint8).reshape(-1, ENTRY_BYTES)
        wide = np.zeros((len(entries), 8), np.uint8)
        wide[:, :_DIGEST_BYTES] = entries[:, :_DIGEST_BYTES]
        found: Digests = wide.view("<u8")[:, 0]
        return found

    def since(self, first: int) -> "Shown":
        """Those of a day (since 1970) or later."""
        entries = np.frombuffer(self.packed, np.uint8).reshape(-1, ENTRY_BYTES)
        days = entries[:, _DIGEST_BYTES] + 256 * entries[:, _DIGEST_BYTES + 1].astype(np.int64)
        return Shown(entries[days >= first].tobytes())


NOTHING_SHOWN = Shown(b"")
ShownItems = frozenset[str] | Shown  # by id where nobody asks when


def named(shown: ShownItems) -> frozenset[str]:
    """The ids of items that are held by id. Raises TypeError for digests."""
    if isinstance(shown, Shown):
        raise TypeError("Digests do not tell the items that they are of.")
    return shown


def pack(items: Iterable[tuple[str, int]]) -> bytes:
    """Entries of items, each with the time (ms) at which it was shown, in this order."""
    return b"".join([_digest(item) + _bytes(day(time)) for item, time in items])


def day(time: int) -> int:
    """The day since 1970 of a time (ms)."""
    return time // DAY_MS


@functools.lru_cache
def _bytes(day: int) -> bytes:
    return min(max(day, 0), 0xFFFF).to_bytes(2, "little")


def _digest(item: str) -> bytes:
    return hashlib.blake2b(item.encode(), digest_size=_DIGEST_BYTES).digest()


def digests(items: Iterable[str]) -> Digests:
    """(n,) of items by id."""
    return Shown(pack((item, 0) for item in items)).digests()


class DigestIndex:
    """Positions of items by digest: about 16 bytes an item. Digests are spread evenly, so that those with the same
    first bits, of which there are as many as items, are one or two."""

    def __init__(self, of: Digests) -> None:
        """of: the digest of each item."""
        bits = max(1, len(of)).bit_length()
        self._shift = np.uint64(8 * _DIGEST_BYTES - bits)
        self._items: Int32 = np.argsort(of, kind="stable").astype(np.int32)
        self._sorted = of[self._items]
        self._start: Int32 = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(np.bincount((of >> self._shift).astype(np.int64), minlength=1 << bits), out=self._start[1:])
        self._added: dict[int, list[int]] = {}
        self._size = len(of)

    def append(self, items: Sequence[str]) -> None:
        """Gives further items the next positions."""
        for digest in digests(items).tolist():
            self._added.setdefault(digest, []).append(self._size)
            self._size += 1

    def positions(self, of: Digests, size: int) -> Int64:
        """Positions below `size` of all items with one of the digests, in no particular order."""
        found = _found(of, self._start, self._shift, self._sorted, self._items)
        if self._added:
            added = [position for digest in of.tolist() for position in self._added.get(digest, ())]
            found = np.concatenate([found, np.array(added, dtype=np.int64)])
        positions: Int64 = found[found < size]
        return positions


@numba.njit(cache=True, nogil=True)
def _found(digests, start, shift, in_order, items):  # type: ignore[no-untyped-def]  # numba infers it
    """The items with one of the digests."""
    found, count = np.empty(len(digests), np.int64), 0
    for digest in digests:
        for at in range(start[digest >> shift], start[(digest >> shift) + 1]):
            if in_order[at] == digest:
                if count == len(found):
                    found = np.append(found, found)
                found[count] = items[at]
                count += 1
    return found[:count]
