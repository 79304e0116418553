"""Arrays that several snapshots share while the newest one grows."""

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class GrowingRows(Generic[T]):
    """Rows that are only ever appended, with room to spare, so that appending costs amortised O(new rows).

    A reader keeps the view it took: its rows never change, not even when the backing array is replaced by a larger one.
    """

    def __init__(self, rows: NDArray[T], used: int | None = None) -> None:
        """used: how many of the rows count, all by default; the others are room to grow into."""
        self._backing = rows
        self._used = len(rows) if used is None else used

    @property
    def rows(self) -> NDArray[T]:
        """All rows there are now."""
        return self._backing[: self._used]

    def append(self, new: NDArray[T]) -> None:
        """Adds rows of the same shape after the last."""
        end = self._used + len(new)
        if end > len(self._backing):
            larger = np.zeros((max(end, 2 * len(self._backing)), *self._backing.shape[1:]), dtype=self._backing.dtype)
            larger[: self._used] = self.rows
            self._backing = larger
        self._backing[self._used : end] = new
        self._used = end
