"""The files of a partition in the lake: `<start>-<end>.parquet` holds records by offset, end exclusive.

Together they hold the log without a hole and without an overlap, and who reads them is told where that is not so.
What is known to be missing has an empty file of its own: `<start>-<end>.lost`, which neither lake nor log ever had, and
`<start>-<end>.expired`, which was removed by its age. A file whose range lies within another's does not count: that one
replaces it. Ticks behind the last file are in `_ticks.json`, so that a quiet partition makes no files.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import lake_format
from feature_store.contracts.errors import UNREADABLE, LakeDamaged
from feature_store.durable import publish, write_file

HELD, LOST, EXPIRED = ".parquet", ".lost", ".expired"
_TICKS = "_ticks.json"
_ROWS = 4_096
_REMEDY = "`matchloop lake check` lists all damage, `matchloop lake repair` reads it again from Kafka."


class Stretch(NamedTuple):
    """The records from offset start up to end, exclusive, and the file that holds them, or says why none does."""

    start: int
    end: int
    path: Path

    @property
    def held(self) -> bool:
        """Whether the file holds the records."""
        return self.path.suffix == HELD


class Flaw(NamedTuple):
    """Where the files of a partition do not fit together."""

    start: int
    end: int
    what: str


class Ticks(msgspec.Struct, frozen=True):
    """Ticks behind the last file. It reaches from start to end, exclusive: whatever else was there are no events."""

    start: int
    end: int
    ticks: list[tuple[int, int, int]]  # offset, position in the record, time (ms)


def partition_folder(directory: Path, log_id: str, partition: int) -> Path:
    """Where a topic's directory holds a partition of a log."""
    return directory / f"log={log_id}" / f"partition={partition}"


def partition_folders(lake: Path, source: str) -> Iterator[tuple[str, int, Path]]:
    """Log, partition and folder of all that the lake has of a topic, `events` or `catalogue`."""
    for folder in sorted((lake / source).glob("log=*/partition=*")):
        yield folder.parent.name.removeprefix("log="), int(folder.name.removeprefix("partition=")), folder


def event_logs(lake: Path) -> list[str]:
    """The logs that the lake has events of, in order."""
    return sorted({log for log, _, _ in partition_folders(lake, "events")})


def all_stretches(folder: Path) -> list[Stretch]:
    """Everything named by a range, in the order of the log, wider ranges first."""
    found = []
    for path in folder.glob("[0-9]*-*.*"):
        if path.suffix in (HELD, LOST, EXPIRED):
            start, _, end = path.stem.partition("-")
            found.append(Stretch(int(start), int(end), path))
    return sorted(found, key=lambda stretch: (stretch.start, -stretch.end, not stretch.held))


def fitted(folder: Path) -> tuple[list[Stretch], list[Flaw]]:
    """What counts, in the order of the log, and where it does not fit together."""
    chain: list[Stretch] = []
    flaws: list[Flaw] = []
    reached = 0
    for stretch in all_stretches(folder):
        if stretch.end <= reached:
            continue  # it was replaced
        if stretch.start > reached:
            flaws.append(Flaw(reached, stretch.start, "missing"))
        elif stretch.start < reached:
            flaws.append(Flaw(stretch.start, reached, "held twice"))
        chain.append(stretch)
        reached = stretch.end
    return chain, flaws


def stretches(folder: Path, since: int = 0) -> list[Stretch]:
    """What counts from an offset on, in the order of the log, without a hole. Raises LakeDamaged, naming the range, if
    it is not so."""
    chain, flaws = fitted(folder)
    if flaws := [flaw for flaw in flaws if flaw.end > since]:
        start, end, what = flaws[0]
        raise LakeDamaged(f"The offsets {start} to {end - 1} of {folder} in the lake are {what}. {_REMEDY}")
    return [stretch for stretch in chain if stretch.end > since]


def files(folder: Path, since: int = 0) -> list[Stretch]:
    """The files that hold the partition from an offset on, in the order of the log. Raises LakeDamaged as stretches
    does."""
    return [stretch for stretch in stretches(folder, since) if stretch.held]


def covered(folder: Path) -> int:
    """The first offset that the folder does not cover, with a file or with ticks."""
    end = max((stretch.end for stretch in all_stretches(folder)), default=0)
    ticks = read_ticks(folder)
    return max(end, ticks.end) if ticks is not None and ticks.start <= end else end


def begin(folder: Path) -> int:
    """The first offset that was not removed by its age."""
    return max((stretch.end for stretch in all_stretches(folder) if stretch.path.suffix == EXPIRED), default=0)


def read_ticks(folder: Path) -> Ticks | None:
    """The ticks behind the last file, None: there are none. Some may be in a file by now."""
    try:
        return msgspec.json.decode((folder / _TICKS).read_bytes(), type=Ticks)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise LakeDamaged(f"{folder / _TICKS} cannot be read ({error}). Remove it: the sink writes it anew.") from None


def write_ticks(folder: Path, ticks: Ticks) -> None:
    """Replaces the ticks behind the last file."""
    write_file(folder / _TICKS, msgspec.json.encode(ticks))


def write(folder: Path, start: int, end: int, rows: pa.Table) -> None:
    """Holds the records from offset start up to end, exclusive, with these rows: in a file that gets its name once it
    is on the disk."""
    draft = folder / f".{start}-{end}.{os.getpid()}"
    try:
        lake_format.write(rows, draft)
        publish(draft, folder / f"{start}-{end}{HELD}")
    finally:
        draft.unlink(missing_ok=True)


def mark_lost(folder: Path, start: int, end: int) -> None:
    """Says of the records from offset start up to end, exclusive, that neither lake nor log has them."""
    write_file(folder / f"{start}-{end}{LOST}", b"")


def read(
    path: Path,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    wanted: pc.Expression | None = None,
    since: int = 0,
) -> pa.Table:
    """The rows of a file, as lake_format.read has them. Raises LakeDamaged if it is torn."""
    try:
        return lake_format.read(path, schema, columns, wanted, since)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from None


def rows(path: Path, schema: pa.Schema, start: int) -> Iterator[dict[str, Any]]:
    """The rows of a file from an offset on, in its order, a few thousand at a time in memory. Raises LakeDamaged if it
    is torn."""
    for some in tables(path, schema, start):
        yield from some.to_pylist()


def tables(path: Path, schema: pa.Schema, start: int = 0) -> Iterator[pa.Table]:
    """The same, as tables."""
    try:
        yield from lake_format.batches(path, schema, pc.field("offset") >= start, _ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from None


def read_all(
    folder: Path, schema: pa.Schema, columns: Sequence[str], wanted: pc.Expression, since: int = 0
) -> pa.Table:
    """The wanted rows of a partition, in no particular order; what holds nothing from the time `since` (ms) on is not
    read. wanted: names no time and no attributes. Raises LakeDamaged if some are missing."""
    parts = [read(stretch.path, schema, columns, wanted, since) for stretch in files(folder)]
    nothing = pa.schema([schema.field(name) for name in columns]).empty_table()
    return pa.concat_tables([nothing, *parts])


def is_old(path: Path) -> bool:
    """Whether a file is of an older format. Raises LakeDamaged if it is torn."""
    try:
        return lake_format.is_old(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from None


def is_torn(path: Path) -> bool:
    """Whether the file ends before its footer, or holds something else."""
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return True
    return False


def _torn(path: Path, error: Exception) -> LakeDamaged:
    return LakeDamaged(f"{path} in the lake cannot be read ({error}). {_REMEDY}")
