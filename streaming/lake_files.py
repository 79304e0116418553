"""The files of a partition in the lake: `<start>-<end>.parquet` holds records by offset, end exclusive.

Together they hold the log without a hole and without an overlap, and who reads them is told where that is not so.
What is known to be missing has an empty file of its own: `<start>-<end>.lost`, which neither lake nor log ever had, and
`<start>-<end>.expired`, which was removed by its age. A file whose range lies within another's does not count: that one
replaces it. Ticks behind the last file are in `_ticks.json`, so that a quiet partition makes no files.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import lake_format
from feature_store.contracts.errors import UNREADABLE, LakeDamaged
from feature_store.lake_path import AnyPath, LakePath, new_file, replace_content

HELD, LOST, EXPIRED = ".parquet", ".lost", ".expired"
_TICKS = "_ticks.json"
_ROWS = 4_096
_REMEDY = "`matchloop lake check` lists all damage, `matchloop lake repair` reads it again from Kafka."


class Stretch(NamedTuple):
    """The records from offset start up to end, exclusive, and the file that holds them, or says why none does."""

    start: int
    end: int
    path: LakePath

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


def partition_folder(directory: AnyPath, log_id: str, partition: int) -> AnyPath:
    """Where a topic's directory holds a partition of a log."""
    return cast(AnyPath, directory / f"log={log_id}" / f"partition={partition}")


def partition_folders(lake: LakePath, source: str) -> Iterator[tuple[str, int, LakePath]]:
    """Log, partition and folder of all that the lake has of a topic, `events` or `catalogue`."""
    found: Iterable[LakePath] = (lake / source).glob("log=*/partition=*")
    for folder in sorted(found, key=lambda folder: folder.parts):
        yield folder.parent.name.removeprefix("log="), int(folder.name.removeprefix("partition=")), folder


def folders_of(lake: LakePath, log_id: str) -> list[LakePath]:
    """The folders of a log's events, in order."""
    return [folder for log, _, folder in partition_folders(lake, "events") if log == log_id]


def event_logs(lake: LakePath) -> list[str]:
    """The logs that the lake has events of, in order."""
    return sorted({log for log, _, _ in partition_folders(lake, "events")})


def all_stretches(folder: LakePath) -> list[Stretch]:
    """Everything named by a range, in the order of the log, wider ranges first."""
    found = []
    for path in folder.glob("[0-9]*-*.*"):
        if path.suffix in (HELD, LOST, EXPIRED):
            start, _, end = path.stem.partition("-")
            found.append(Stretch(int(start), int(end), path))
    return sorted(found, key=lambda stretch: (stretch.start, -stretch.end, not stretch.held))


def fitted(folder: LakePath) -> tuple[list[Stretch], list[Flaw]]:
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


def stretches(folder: LakePath, since: int = 0) -> list[Stretch]:
    """What counts from an offset on, in the order of the log, without a hole. Raises LakeDamaged, naming the range, if
    it is not so."""
    chain, flaws = fitted(folder)
    if flaws := [flaw for flaw in flaws if flaw.end > since]:
        start, end, what = flaws[0]
        raise LakeDamaged(f"The offsets {start} to {end - 1} of {folder} in the lake are {what}. {_REMEDY}")
    return [stretch for stretch in chain if stretch.end > since]


def files(folder: LakePath, since: int = 0) -> list[Stretch]:
    """The files that hold the partition from an offset on, in the order of the log. Raises LakeDamaged as stretches
    does."""
    return [stretch for stretch in stretches(folder, since) if stretch.held]


def end(folder: LakePath) -> int:
    """The first offset behind what is named by a range."""
    return max((stretch.end for stretch in all_stretches(folder)), default=0)


def covered(folder: LakePath) -> int:
    """The first offset that the folder does not cover, with a file or with ticks."""
    reached, ticks = end(folder), read_ticks(folder)
    return max(reached, ticks.end) if ticks is not None and ticks.start <= reached else reached


def begin(folder: LakePath) -> int:
    """The first offset that was not removed by its age."""
    return max((stretch.end for stretch in all_stretches(folder) if stretch.path.suffix == EXPIRED), default=0)


def read_ticks(folder: LakePath) -> Ticks | None:
    """The ticks behind the last file, None: there are none. Some may be in a file by now."""
    try:
        return msgspec.json.decode((folder / _TICKS).read_bytes(), type=Ticks)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise LakeDamaged(f"{folder / _TICKS} cannot be read ({error}). Remove it: the sink writes it anew.") from None


def write_ticks(folder: LakePath, ticks: Ticks) -> None:
    """Replaces the ticks behind the last file."""
    replace_content(folder / _TICKS, msgspec.json.encode(ticks))


def write(folder: LakePath, start: int, end: int, rows: pa.Table) -> None:
    """Holds the records from offset start up to end, exclusive, with these rows: in a file that gets its name once it
    is on the disk."""
    with new_file(folder / f"{start}-{end}{HELD}") as draft:
        lake_format.write(rows, draft)


def mark_lost(folder: LakePath, start: int, end: int) -> None:
    """Says of the records from offset start up to end, exclusive, that neither lake nor log has them."""
    replace_content(folder / f"{start}-{end}{LOST}", b"")


def read(
    path: LakePath,
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


def rows(path: LakePath, schema: pa.Schema, start: int) -> Iterator[dict[str, Any]]:
    """The rows of a file from an offset on, in its order, a few thousand at a time in memory. Raises LakeDamaged if it
    is torn."""
    for some in tables(path, schema, start):
        yield from some.to_pylist()


def tables(path: LakePath, schema: pa.Schema, start: int = 0) -> Iterator[pa.Table]:
    """The same, as tables."""
    try:
        yield from lake_format.batches(path, schema, pc.field("offset") >= start, _ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from None


def read_all(
    folder: LakePath, schema: pa.Schema, columns: Sequence[str], wanted: pc.Expression, since: int = 0
) -> pa.Table:
    """The wanted rows of a partition, in no particular order; what holds nothing from the time `since` (ms) on is not
    read. wanted: names no time and no attributes. Raises LakeDamaged if some are missing."""
    parts = [read(stretch.path, schema, columns, wanted, since) for stretch in files(folder)]
    nothing = pa.schema([schema.field(name) for name in columns]).empty_table()
    return pa.concat_tables([nothing, *parts])


def is_old(path: LakePath) -> bool:
    """Whether a file is of an older format. Raises LakeDamaged if it is torn."""
    try:
        return lake_format.is_old(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from None


def is_torn(path: LakePath) -> bool:
    """Whether the file ends before its footer, or holds something else."""
    try:
        lake_format.rows_in(path)
    except (pa.ArrowInvalid, OSError):
        return True
    return False


def _torn(path: LakePath, error: Exception) -> LakeDamaged:
    return LakeDamaged(f"{path} in the lake cannot be read ({error}). {_REMEDY}")
