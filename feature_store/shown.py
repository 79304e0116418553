"""What a user was shown, packed: seven bytes an item, five of a digest of its id and two of the day.

Another item has the same digest once in 10^12: of a million items and 500 shown ones it hides one that was not shown to
one user in two thousand.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Int64
from feature_store.definitions import DAY_MS

ENTRY_BYTES = 7
_DIGEST_BYTES = 5

Digests = NDArray[np.uint64]


class Shown(NamedTuple):
    """Items not to show again, by digest."""

    packed: bytes  # oldest first

    def digests(self) -> Digests:
        """(n,) of the items."""
        entries = np.frombuffer(self.packed, np.uint8).reshape(-1, ENTRY_BYTES)
        wide = np.zeros((len(entries), 8), np.uint8)
        wide[:, :_DIGEST_BYTES] = entries[:, :_DIGEST_BYTES]
        found: Digests = wide.view("<u8")[:, 0]
        return found


NOTHING_SHOWN = Shown(b"")
ShownItems = frozenset[str] | Shown  # by id where they are known, as in a replay


def named(shown: ShownItems) -> frozenset[str]:
    """The ids of items that are held by id. Raises TypeError for digests."""
    if isinstance(shown, Shown):
        raise TypeError("Digests do not tell the items that they are of.")
    return shown


def pack(items: Iterable[tuple[str, int]]) -> bytes:
    """Entries of items, each with the time (ms) at which it was shown, in this order."""
    return b"".join(_digest(item) + _day(time) for item, time in items)


def day(time: int) -> int:
    """The day since 1970 of a time (ms)."""
    return time // DAY_MS


def _day(time: int) -> bytes:
    return min(max(day(time), 0), 0xFFFF).to_bytes(2, "little")


def _digest(item: str) -> bytes:
    return hashlib.blake2b(item.encode(), digest_size=_DIGEST_BYTES).digest()


class DigestIndex:
    """Positions of items by digest: 12 bytes an item."""

    def __init__(self, items: Sequence[str]) -> None:
        digests = Shown(pack((item, 0) for item in items)).digests()
        self._order = np.argsort(digests, kind="stable").astype(np.int32)
        self._sorted = digests[self._order]
        self._added: dict[int, list[int]] = {}
        self._size = len(items)

    def append(self, items: Sequence[str]) -> None:
        """Gives further items the next positions."""
        for digest in Shown(pack((item, 0) for item in items)).digests().tolist():
            self._added.setdefault(digest, []).append(self._size)
            self._size += 1

    def positions(self, digests: Digests, size: int) -> Int64:
        """Positions below `size` of all items with one of the digests, in no particular order."""
        first, last = (np.searchsorted(self._sorted, digests, side) for side in ("left", "right"))
        found = [self._order[first[last > first]].astype(np.int64)]
        for i in np.flatnonzero(last - first > 1).tolist():  # several items of one digest
            found.append(self._order[first[i] + 1 : last[i]].astype(np.int64))
        if self._added:
            added = [position for digest in digests.tolist() for position in self._added.get(digest, ())]
            found.append(np.array(added, dtype=np.int64))
        positions: Int64 = np.concatenate(found)
        return positions[positions < size]
