"""When items may be shown, so that no request looks at items whose time has not come or is over."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from feature_store.arrays import Int64
from feature_store.contracts.catalogue import Item

_ALWAYS, _FOR_EVER = 0, np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows of the items that have one; never changed."""

    rows: Int64  # (w, 3) position, from when (ms), and from when on no more; by position
    times: Int64  # at which something comes or goes, ascending

    @classmethod
    def of(cls, rows: Int64) -> "Windows":
        """Of rows (w, 3) in any order."""
        return cls(rows[np.argsort(rows[:, 0])], np.unique(rows[:, 1:]))

    @classmethod
    def none(cls) -> "Windows":
        """Of items that may always be shown."""
        return cls.of(np.empty((0, 3), np.int64))

    def with_items(self, changed: Iterable[tuple[int, Item | None]]) -> "Windows":
        """After changes of the items at these positions, None: deleted."""
        items = dict(changed)
        said = [
            (at, _ALWAYS if item.available_from is None else item.available_from,
             _FOR_EVER if item.available_until is None else item.available_until)
            for at, item in items.items()
            if item is not None and (item.available_from, item.available_until) != (None, None)
        ]  # fmt: skip
        kept = self.rows[~np.isin(self.rows[:, 0], np.fromiter(items, np.int64, len(items)))]
        if not said and len(kept) == len(self.rows):
            return self
        return Windows.of(np.concatenate([kept, np.array(said, np.int64).reshape(-1, 3)]))

    def closed(self, time: int) -> Int64:
        """Positions of the items that may not be shown at a time, ascending."""
        _, begins, ends = self.rows.T
        found: Int64 = self.rows[(time < begins) | (ends <= time), 0]
        return found

    def unchanged(self, time: int) -> tuple[int, int]:
        """The stretch around a time, its end excluded, within which nothing comes or goes."""
        place = int(np.searchsorted(self.times, time, side="right"))
        begin = int(self.times[place - 1]) if place else _ALWAYS
        return begin, int(self.times[place]) if place < len(self.times) else _FOR_EVER
