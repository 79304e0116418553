"""Finding and reading the files that people import: Parquet or CSV, single or in parts, columns called anything.

The import format is a directory with

    interactions.parquet or .csv (also `ratings`)   user_id, item_id, timestamp, and optionally type, value or rating,
                                                    written (when the row was recorded, if that was later)
    items.parquet or .csv, optional                 item_id, title, categories or genres; other columns are attributes
    users.parquet or .csv, optional                 user_id; other columns are attributes

or directories of these names with part files.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from feature_store.contracts.errors import InvalidInput

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
}
_FORMATS = (".parquet", ".csv")
_BATCH_ROWS = 1 << 18
_BLOCK_BYTES = 16 << 20

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Mapping:
    """Columns that are called otherwise: our name -> name in the files.

    Raises InvalidInput for a name that is not ours. A file without the given
    column is read with our own names: `user_id` may be called `customer` in one of two files.
    """

    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                raise InvalidInput(f"{name!r} is not a column that can be mapped. Map one of: {', '.join(COLUMNS)}.")

    @classmethod
    def parse(cls, options: Sequence[str]) -> "Mapping":
        """From texts like `user_id=customer`. Raises InvalidInput for a text of another shape or a name given twice."""
        columns: dict[str, str] = {}
        for option in options:
            name, equals, found = (part.strip() for part in option.partition("="))
            if not (name and equals and found):
                raise InvalidInput(f"{option!r} is not a column mapping. Write OURS=YOURS, such as user_id=customer.")
            if name in columns:
                raise InvalidInput(f"Column {name!r} is mapped twice, to {columns[name]!r} and {found!r}. Choose one.")
            columns[name] = found
        return cls(columns)

    def find(self, name: str, columns: Sequence[str]) -> str | None:
        """The file's column that holds ours, if it has one."""
        wanted = (self.columns[name], *COLUMNS[name]) if name in self.columns else COLUMNS[name]
        return next((column for column in wanted if column in columns), None)


class Batch(NamedTuple):
    """Some rows of a file."""

    table: pa.Table
    rows: "pa.Int64Array"  # number of each row in its file, from 1, header and blank lines not counted
    malformed: list[int]  # numbers of rows left out before the end of this batch: they have too many or too few columns


@dataclass(frozen=True)
class SourceFile:
    """One readable file and the columns it has."""

    path: Path
    schema: pa.Schema

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
        malformed: list[int] = []
        parsing = _parsing(malformed)
        if text is None:
            ours = {name for names in COLUMNS.values() for name in names}
            types = {name: pa.string() for name in self.schema.names if name in ours}
            table = pa_csv.read_csv(
                self.path,
                read_options=pa_csv.ReadOptions(use_threads=False),  # otherwise malformed rows have no number
                parse_options=parsing,
                convert_options=pa_csv.ConvertOptions(column_types=types),
            )
            yield Batch(table, _numbers(0, len(table), malformed), malformed)
            on_bytes(self.path.stat().st_size)
            return
        start = reported = 0
        with pa.OSFile(os.fspath(self.path)) as file:
            reader = pa_csv.open_csv(
                file,
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                parse_options=parsing,
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(text), column_types={name: pa.string() for name in text}
                ),
            )
            for batch in reader:
                known = malformed[:]
                yield Batch(pa.Table.from_batches([batch]), _numbers(start, len(batch), known), known[reported:])
                start, reported = start + len(batch), len(known)
                on_bytes(file.tell())
        if malformed[reported:]:
            yield Batch(reader.schema.empty_table(), _numbers(0, 0, []), malformed[reported:])


def find_sources(source: Path) -> dict[str, list[SourceFile]]:
    """The files of each data set. `source` may also be one file of interactions.

    Raises InvalidInput if there are no interactions, two files claim to be the same data set, or one is unreadable.
    """
    if source.is_file() and source.suffix in _FORMATS:
        return {INTERACTIONS: [_open(source)]}
    if not source.is_dir():
        raise InvalidInput(
            f"There is no directory {source}. Give a directory with interactions.parquet or interactions.csv."
        )
    found = {name: files for name, stems in DATASETS.items() if (files := _files(source, stems))}
    if INTERACTIONS not in found:
        here = ", ".join(sorted(path.name for path in source.iterdir())[:20]) or "nothing"
        raise InvalidInput(
            f"{source} has no interactions: expected interactions.parquet, interactions.csv, or a directory "
            f"interactions with part files. It holds {here}. Rename the file with your users' clicks or ratings."
        )
    return {name: [_open(path) for path in files] for name, files in found.items()}


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
    if "UTF8" in reason:
        return InvalidInput(f"{path} is not UTF-8 text ({reason}). Save it as UTF-8.")
    return InvalidInput(f"{path} cannot be read as {path.suffix[1:]} ({reason}). Export it again.")


def _files(source: Path, stems: Sequence[str]) -> list[Path]:
    names = [stem + suffix for stem in stems for suffix in (*_FORMATS, "")]
    claims = [path for name in names if (path := source / name).exists()]
    if len(claims) > 1:
        raise InvalidInput(
            f"{source} holds {' and '.join(path.name for path in claims)}, which are the same data set. Keep one."
        )
    if not claims or claims[0].is_file():
        return claims
    parts = sorted(
        path for path in claims[0].iterdir() if path.suffix in _FORMATS and not path.name.startswith((".", "_"))
    )
    if not parts:
        raise InvalidInput(f"The directory {claims[0]} holds no .parquet or .csv file. Put some there, or remove it.")
    return parts


def _open(path: Path) -> SourceFile:
    if path.stat().st_size == 0:
        raise InvalidInput(f"{path} is empty. Export it again, with a header and at least one row.")
    try:
        schema = _csv_schema(path) if path.suffix == ".csv" else pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path} has two columns named {twice[0]!r}. Rename one of them.")
    return SourceFile(path, schema)


def _csv_schema(path: Path) -> pa.Schema:
    with pa_csv.open_csv(path, parse_options=_parsing([])) as reader:
        return reader.schema


def _parsing(malformed: list[int]) -> pa_csv.ParseOptions:
    def skip(row: pa_csv.InvalidRow) -> str:
        malformed.append((row.number or 1) - 1)  # Arrow counts the header
        return "skip"

    return pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip)


def _numbers(start: int, count: int, malformed: Sequence[int]) -> "pa.Int64Array":
    """Numbers of the rows start..start+count of those read, in a file where the malformed ones lie between them."""
    rows = np.arange(start, start + count)
    # The k-th malformed row (from 0) has malformed[k] - 1 - k good rows before it.
    good_before = np.asarray(malformed, dtype=np.int64) - 1 - np.arange(len(malformed))
    return pa.array(rows + np.searchsorted(good_before, rows, side="right") + 1, pa.int64())
