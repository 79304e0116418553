"""Finding and reading the files that people import: Parquet or CSV, single or in parts, columns called anything.

The import format is a directory with

    interactions.parquet or .csv (also `ratings`)   user_id, item_id, timestamp, and optionally type, value or rating,
                                                    written (when the row was recorded, if that was later)
    items.parquet or .csv, optional                 item_id, title, categories or genres, available_from and
                                                    available_until (times); other columns are attributes
    users.parquet or .csv, optional                 user_id, and optionally written; other columns are attributes

or directories of these names with part files.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from feature_store.contracts.errors import InvalidInput
from offline_training.data.csv_records import CsvRecords

INTERACTIONS = "interactions"
ITEMS = "items"
USERS = "users"
DATASETS = {INTERACTIONS: ("interactions", "ratings"), ITEMS: ("items",), USERS: ("users",)}
# What our columns may be called without a mapping.
COLUMNS = {
    "user_id": ("user_id",),
    "item_id": ("item_id",),
    "timestamp": ("timestamp",),
    "written": ("written",),
    "type": ("type",),
    "value": ("value", "rating"),
    "title": ("title",),
    "categories": ("categories", "genres"),
    "available_from": ("available_from",),
    "available_until": ("available_until",),
}
_FORMATS = (".parquet", ".csv")
_BATCH_ROWS = 1 << 18
_BLOCK_BYTES = 16 << 20
_WRONG_COLUMNS = "row has another number of columns than the header"
_UNCLOSED = "a quote is not closed on its line (values with line breaks: --newlines-in-values)"
# What the first bytes say of a file that is called .csv.
_NOT_CSV = {
    b"PAR1": "is a Parquet file. Name it .parquet",
    b"\x1f\x8b": "is compressed with gzip. Unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd. Unpack it",
    b"PK\x03\x04": "is a zip archive or an Excel workbook. Unpack it, or save it as CSV",
    b"\xff\xfe": "is UTF-16 text. Save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text. Save it as UTF-8",
}

Names = dict[str, tuple[str, ...]]
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Mapping:
    """Columns that are called otherwise: our name -> name in the files.

    Raises InvalidInput for a name that is not ours, and for a column that two of ours are mapped to. A file without the
    given column is read with our own names: `user_id` may be called `customer` in one of two files.
    """

    columns: dict[str, str] = field(default_factory=dict)
    ours: Names = field(default_factory=lambda: COLUMNS)  # ours, and what they may be called without a mapping

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in self.ours:
                raise InvalidInput(f"{name!r} is not a column that can be mapped. Map one of: {', '.join(self.ours)}.")
        check_distinct(self.columns)

    @classmethod
    def parse(cls, options: Sequence[str], ours: Names | None = None) -> "Mapping":
        """From texts like `user_id=customer`. Raises InvalidInput for a text of another shape or a name given twice."""
        columns: dict[str, str] = {}
        for option in options:
            name, equals, found = (part.strip() for part in option.partition("="))
            if not (name and equals and found):
                raise InvalidInput(f"{option!r} is not a column mapping. Write OURS=YOURS, such as user_id=customer.")
            if name in columns:
                raise InvalidInput(f"Column {name!r} is mapped twice, to {columns[name]!r} and {found!r}. Choose one.")
            columns[name] = found
        return cls(columns, COLUMNS if ours is None else ours)

    def find(self, name: str, columns: Sequence[str]) -> str | None:
        """The file's column that holds ours, if it has one."""
        wanted = (self.columns[name], *self.ours[name]) if name in self.columns else self.ours[name]
        return next((column for column in wanted if column in columns), None)


class Malformed(NamedTuple):
    """A row that is not split into columns."""

    row: int  # its number in its file, from 1, header and blank lines not counted
    reason: str


class Batch(NamedTuple):
    """Some rows of a file."""

    table: pa.Table
    rows: "pa.Int64Array"  # number of each row in its file, as Malformed.row
    malformed: list[Malformed]  # rows that were left out and had not been named yet


@dataclass(frozen=True)
class SourceFile:
    """One readable file and the columns it has."""

    path: Path
    schema: pa.Schema
    newlines_in_values: bool = False  # of a CSV file: quoted values may hold line breaks

    @property
    def is_csv(self) -> bool:
        return self.path.suffix == ".csv"

    def require(self, ours: str, mapping: Mapping) -> str:
        """The file's column that holds ours. Raises InvalidInput if there is none."""
        names = self.schema.names
        if found := mapping.find(ours, names):
            return found
        separator = " Are its columns separated by commas?" if self.is_csv and len(names) == 1 else ""
        raise InvalidInput(
            f"{self.path} has no column {mapping.columns.get(ours, ours)!r}; it has {', '.join(map(repr, names))}."
            f"{separator} Say which one holds it with `--map {ours}=NAME`."
        )

    def batches(self, text: Sequence[str] | None, on_bytes: OnBytes) -> Iterator[Batch]:
        """Reads the rows. `text`: of a CSV file only these columns, as text; None: all columns, CSV types inferred with
        those of ours as text. Calls on_bytes with the bytes read so far. Raises InvalidInput if the file is damaged."""
        read = self._csv_batches if self.is_csv else self._parquet_batches
        try:
            yield from read(text, on_bytes)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from None

    def _parquet_batches(self, text: Sequence[str] | None, on_bytes: OnBytes) -> Iterator[Batch]:
        with pq.ParquetFile(self.path) as file:
            total, size, start = max(file.metadata.num_rows, 1), self.path.stat().st_size, 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=None if text is None else list(text)):
                table = pa.Table.from_batches([batch])
                yield Batch(table, _numbers(start, len(table), []), [])
                start += len(table)
                on_bytes(size * start // total)

    def _csv_batches(self, text: Sequence[str] | None, on_bytes: OnBytes) -> Iterator[Batch]:
        """Raises InvalidInput if it does not come to as many rows as the file has."""
        with CsvRecords(self.path, self.newlines_in_values) as records:
            skipped: list[int] = []
            told_skipped = told_unclosed = start = 0
            for table in self._parsed(records, skipped, text):
                # Rows that are parsed or left out by now, of which some may lie behind this table.
                wrong, unclosed = skipped[:], records.unclosed[:]
                malformed = [Malformed(row, _WRONG_COLUMNS) for row in wrong[told_skipped:]]
                malformed += [Malformed(row, _UNCLOSED) for row in unclosed[told_unclosed:]]
                yield Batch(table, _numbers(start, len(table), sorted([*wrong, *unclosed])), sorted(malformed))
                told_skipped, told_unclosed, start = len(wrong), len(unclosed), start + len(table)
                on_bytes(records.bytes_read)
            if start + told_skipped + told_unclosed != records.count:
                raise InvalidInput(
                    f"{self.path} has {records.count} rows, but {start + told_skipped + told_unclosed} were read. "
                    "Export it again, with quotes around every value."
                )

    def _parsed(self, records: CsvRecords, skipped: list[int], text: Sequence[str] | None) -> Iterator[pa.Table]:
        """Tables of the rows that have the right number of columns, and an empty one at the end; the numbers of the
        others go to `skipped`."""

        def skip(row: pa_csv.InvalidRow) -> str:
            number = (row.number or 1) - 1  # Arrow counts the header, and not what was left out before
            unclosed = records.unclosed
            skipped.append(number + bisect_right(range(len(unclosed)), number - 1, key=lambda k: unclosed[k] - 1 - k))
            return "skip"

        parsing = pa_csv.ParseOptions(newlines_in_values=self.newlines_in_values, invalid_row_handler=skip)
        reading = pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)  # threads: skipped rows have no number
        file = pa.PythonFile(records, "r")
        if text is None:
            ours = {name for names in COLUMNS.values() for name in names}
            types = {name: pa.string() for name in self.schema.names if name in ours}
            yield pa_csv.read_csv(file, reading, parsing, pa_csv.ConvertOptions(column_types=types))
            return
        converting = pa_csv.ConvertOptions(
            include_columns=list(text), column_types={name: pa.string() for name in text}
        )
        reader = pa_csv.open_csv(file, reading, parsing, converting)
        for batch in reader:
            yield pa.Table.from_batches([batch])
        yield reader.schema.empty_table()


def find_sources(source: Path, newlines_in_values: bool = False) -> dict[str, list[SourceFile]]:
    """The files of each data set. `source` may also be one file of interactions. newlines_in_values: quoted values of
    CSV files may hold line breaks.

    Raises InvalidInput if there are no interactions, two files claim to be the same data set, or one is unreadable.
    """
    if source.is_file() and source.suffix in _FORMATS:
        return {INTERACTIONS: [_open(source, newlines_in_values)]}
    if not source.is_dir():
        problem = "is neither a directory nor a .parquet or .csv file" if source.exists() else "does not exist"
        raise InvalidInput(f"{source} {problem}. Give a directory with interactions.parquet or interactions.csv.")
    found = {name: files for name, stems in DATASETS.items() if (files := _files(source, stems))}
    if INTERACTIONS not in found:
        here = ", ".join(sorted(path.name for path in source.iterdir())[:20]) or "nothing"
        raise InvalidInput(
            f"{source} has no interactions: expected interactions.parquet, interactions.csv, or a directory "
            f"interactions with part files. It holds {here}. Rename the file with your users' clicks or ratings."
        )
    return {name: [_open(path, newlines_in_values) for path in files] for name, files in found.items()}


def check_distinct(columns: dict[str, str]) -> None:
    """Raises InvalidInput if two of our columns are read from one."""
    by_theirs: dict[str, str] = {}
    for ours, theirs in columns.items():
        if (other := by_theirs.setdefault(theirs, ours)) != ours:
            raise InvalidInput(f"Column {theirs!r} would be read as {other} and as {ours}. Map them to two columns.")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's path before what is said about one of its columns."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def _unreadable(path: Path, error: Exception) -> InvalidInput:
    """What to tell about a file that cannot be read."""
    reason = str(error).splitlines()[0]
    return InvalidInput(f"{path} cannot be read as {path.suffix[1:]} ({reason}). Export it again.")


def _files(source: Path, stems: Sequence[str]) -> list[Path]:
    names = [stem + suffix for stem in stems for suffix in (*_FORMATS, "")]
    claims = [path for name in names if (path := source / name).exists()]
    if len(claims) > 1:
        raise InvalidInput(
            f"{source} holds {' and '.join(path.name for path in claims)}, which are the same data set. Keep one."
        )
    if not claims or not claims[0].is_dir():
        return claims
    parts = sorted(
        path for path in claims[0].iterdir() if path.suffix in _FORMATS and not path.name.startswith((".", "_"))
    )
    if not parts:
        raise InvalidInput(f"The directory {claims[0]} holds no .parquet or .csv file. Put some there, or remove it.")
    return parts


def _open(path: Path, newlines_in_values: bool) -> SourceFile:
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file. Put one there that can be read twice.")
    if path.stat().st_size == 0:
        raise InvalidInput(f"{path} is empty. Export it again, with a header and at least one row.")
    try:
        schema = _csv_schema(path, newlines_in_values) if path.suffix == ".csv" else pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path} has two columns named {twice[0]!r}. Rename one of them.")
    return SourceFile(path, schema, newlines_in_values)


def _csv_schema(path: Path, newlines_in_values: bool) -> pa.Schema:
    with path.open("rb") as file:
        first = file.read(4)
    for signature, found in _NOT_CSV.items():
        if first.startswith(signature):
            raise InvalidInput(f"{path} {found}.")
    parsing = pa_csv.ParseOptions(newlines_in_values=newlines_in_values, invalid_row_handler=lambda _: "skip")
    with (
        CsvRecords(path, newlines_in_values) as records,
        pa_csv.open_csv(pa.PythonFile(records, "r"), pa_csv.ReadOptions(use_threads=False), parsing) as reader,
    ):
        return reader.schema


def _numbers(start: int, count: int, malformed: Sequence[int]) -> "pa.Int64Array":
    """Numbers of the rows start..start+count of those read, in a file where the malformed ones lie between them."""
    rows = np.arange(start, start + count)
    # The k-th malformed row (from 0) has malformed[k] - 1 - k good rows before it.
    good_before = np.asarray(malformed, dtype=np.int64) - 1 - np.arange(len(malformed))
    return pa.array(rows + np.searchsorted(good_before, rows, side="right") + 1, pa.int64())
