"""How much feedback the lake has got since a moment."""

from collections.abc import Iterator

import pyarrow.compute as pc

from feature_store.contracts.columns import EVENTS
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.rewriting import reading
from streaming.lake_files import covered, files, partition_folders, read


class Feedback:
    """The feedback in the lake's events. Files are read once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._counts: dict[tuple[LakePath, int], int] = {}

    def mark(self) -> dict[str, int]:
        """How far the lake goes now: by partition, the first offset that it does not hold."""
        return {name: covered(folder) for name, folder in self._folders()}

    def since(self, mark: dict[str, int]) -> int:
        """How many events of feedback have come since then."""
        total, seen = 0, {}
        with reading(self._home):
            for name, folder in self._folders():
                begin = mark.get(name, 0)
                for _, end, path in files(folder):
                    if end > begin:
                        seen[path, begin] = self._counts.get((path, begin)) or _count(path, begin)
                        total += seen[path, begin]
        self._counts = seen
        return total

    def _folders(self) -> Iterator[tuple[str, LakePath]]:
        for *_, folder in partition_folders(self._home.lake, "events"):
            yield "/".join(folder.parts[-2:]), folder


def _count(path: LakePath, begin: int) -> int:
    rows = read(path, EVENTS, ["kind", "offset"])
    counts = pc.and_(pc.equal(rows["kind"], "feedback"), pc.greater_equal(rows["offset"], begin))
    return int(pc.sum(counts).as_py() or 0)
