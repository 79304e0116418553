"""How much feedback the lake has got since a moment."""

from pathlib import Path

import pyarrow.compute as pc

from feature_store.contracts.columns import EVENTS
from feature_store.rewriting import reading
from streaming.lake_files import covered, files, read


class Feedback:
    """The feedback in a lake's events. Files are read once."""

    def __init__(self, lake: Path) -> None:
        self._events = lake / "events"
        self._counts: dict[tuple[Path, int], int] = {}

    def mark(self) -> dict[str, int]:
        """How far the lake goes now: by partition, the first offset that it does not hold."""
        return {str(folder.relative_to(self._events)): covered(folder) for folder in self._folders()}

    def since(self, mark: dict[str, int]) -> int:
        """How many events of feedback have come since then."""
        total, seen = 0, {}
        with reading(self._events.parent.parent):
            for folder in self._folders():
                begin = mark.get(str(folder.relative_to(self._events)), 0)
                for _, end, path in files(folder):
                    if end > begin:
                        seen[path, begin] = self._counts.get((path, begin)) or _count(path, begin)
                        total += seen[path, begin]
        self._counts = seen
        return total

    def _folders(self) -> list[Path]:
        return sorted(self._events.glob("log=*/partition=*"))


def _count(path: Path, begin: int) -> int:
    rows = read(path, EVENTS, ["kind", "offset"])
    counts = pc.and_(pc.equal(rows["kind"], "feedback"), pc.greater_equal(rows["offset"], begin))
    return int(pc.sum(counts).as_py() or 0)
