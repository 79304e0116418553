"""Where an import writes before its results count, and what it says about refused rows."""

import contextlib
import fcntl
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.errors import Unavailable
from feature_store.home import Home
from feature_store.lake_claim import claim
from offline_training.data.sources import Malformed

_REJECTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # from 1, header and blank lines not counted
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class DatasetReport:
    """What became of the rows of one data set: read = accepted + duplicates + the sum of rejected."""

    read: int
    accepted: int
    duplicates: int  # of another row, or of what the lake held already
    rejected: dict[str, int]  # rows by reason
    rejects_file: Path | None  # file, row and reason of each rejected row; None if there is none
    ignored_columns: tuple[str, ...] = ()  # neither ours nor usable as an attribute


class Rejects:
    """Collects refused rows. They are named by file and row, not repeated: user ids never enter the lake."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._tables: list[pa.Table] = []

    def add(self, path: Path, rows: Sequence[int] | pa.Array, reasons: Sequence[str]) -> None:
        """Adds rows of a file, by number; reasons runs parallel."""
        if len(reasons):
            self.counts.update(reasons)
            files = pa.repeat(pa.scalar(path.name), len(reasons))
            self._tables.append(pa.table([files, pa.array(rows, pa.int64()), pa.array(reasons)], schema=_REJECTS))

    def add_malformed(self, path: Path, rows: Sequence[Malformed]) -> None:
        """Adds rows that could not be split into columns."""
        self.add(path, [row.row for row in rows], [row.reason for row in rows])

    def save(self, path: Path) -> Path | None:
        """Writes the rows (in place of an older file of the name); returns the path if there are any."""
        path.unlink(missing_ok=True)
        if not self._tables:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        pq.write_table(pa.concat_tables(self._tables), aside)
        aside.replace(path)
        return path


@contextlib.contextmanager
def staging_folder(home: Home) -> Iterator[Path]:
    """An empty folder on the home's file system, for one import at a time. What an import that was killed left in it is
    removed. Raises Unavailable while another import writes to the lake."""
    claim(home)
    home.aside.mkdir(parents=True, exist_ok=True)
    folder = home.aside / ".import"
    with (home.aside / ".import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"Another import is writing to {home.lake}. Wait for it to end.") from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
