"""Imports items and users: one Parquet file each in the lake, the newest description of an id counts."""

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import compress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import lake_format
from feature_store.contracts import columns
from feature_store.contracts.catalogue import MAX_ATTRIBUTES, MAX_CATEGORIES, MAX_TITLE_CHARACTERS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.lake_path import replace
from offline_training.data import checks
from offline_training.data.erasures import CarriedOut
from offline_training.data.sources import Mapping, SourceFile, naming
from offline_training.data.staging import DatasetReport, Rejects
from offline_training.progress import Progress

_WINDOW = ("available_from", "available_until")

Row = dict[str, Any]
ReadRows = Callable[[SourceFile, pa.Table, checks.Verdict], tuple[list[Row], list[str]]]


def import_items(
    files: Sequence[SourceFile], home: Home, staging: Path, name: str, mapping: Mapping, progress: Progress
) -> DatasetReport:
    """Puts the files' items into `<lake>/items/items.parquet`. Columns that are not ours become attributes if they hold
    text, numbers, truth values or times. Raises InvalidInput if the id column is missing, a column of ours has an
    unusable type, or there are more than 64 attributes."""

    def rows(file: SourceFile, table: pa.Table, verdict: checks.Verdict) -> tuple[list[Row], list[str]]:
        ours = file.require("item_id", mapping)
        title, categories = (mapping.find(column, table.column_names) for column in ("title", "categories"))
        windows = [mapping.find(column, table.column_names) for column in _WINDOW]
        attributes, ignored = _attributes(table, {ours, title, categories, *windows})
        items = checks.ids(table[ours].combine_chunks(), ours, verdict, from_csv=file.is_csv).to_pylist()
        titles = _titles(table, title, verdict)
        lists = _categories(table, categories, verdict)
        begins, ends = (_times(table, column, verdict) for column in windows)
        cells = zip(items, titles, lists, attributes, begins, ends, strict=True)
        return [dict(zip(columns.ITEMS.names, row, strict=True)) for row in cells], ignored

    return _import(files, "items", rows, columns.ITEMS, home, staging, name, progress)


def import_users(
    files: Sequence[SourceFile],
    home: Home,
    staging: Path,
    name: str,
    keyring: Keyring,
    mapping: Mapping,
    now: int,
    progress: Progress,
) -> DatasetReport:
    """Puts the files' users into `<lake>/users/users.parquet`, under their keys; otherwise like import_items. A column
    `written` says when a row was recorded; without it, it is known from now (ms) on. Who was erased is described anew
    only by what was written later."""
    erased = CarriedOut.load(home.lake)

    def rows(file: SourceFile, table: pa.Table, verdict: checks.Verdict) -> tuple[list[Row], list[str]]:
        ours = file.require("user_id", mapping)
        written = mapping.find("written", table.column_names)
        attributes, ignored = _attributes(table, {ours, written})
        ids = checks.ids(table[ours].combine_chunks(), ours, verdict, from_csv=file.is_csv)
        if written:
            times = checks.times(table[written].combine_chunks(), written, verdict)
        else:
            times = pa.nulls(len(table), pa.int64())
        erased.refuse(ids, pc.fill_null(times, 0).to_numpy(zero_copy_only=False), keyring, verdict)
        return [
            {"user": keyring.user_key(user), "attributes": attributes, "written": time, "imported": now}
            for user, attributes, time in zip(ids.to_pylist(), attributes, times.to_pylist(), strict=True)
        ], ignored

    return _import(files, "users", rows, columns.USERS, home, staging, name, progress)


def _import(
    files: Sequence[SourceFile],
    dataset: str,
    read_rows: ReadRows,
    schema: pa.Schema,
    home: Home,
    staging: Path,
    name: str,
    progress: Progress,
) -> DatasetReport:
    target = home.lake / dataset / f"{dataset}.parquet"
    identity = schema.names[0]
    known: dict[str, Row] = {}
    if target.exists():
        known = {row[identity]: row for row in lake_format.read(target, schema).to_pylist()}
    rejects = Rejects()
    fresh: dict[str, Row] = {}
    ignored: dict[str, None] = {}
    read = passed = 0
    for number, file in enumerate(files):
        progress(number / len(files), f"reading {file.path.name}")
        for batch in file.batches(None, lambda _: None):
            verdict = checks.Verdict(len(batch.table))
            with naming(file.path):
                rows, unused = read_rows(file, batch.table, verdict)
            ignored |= dict.fromkeys(unused)
            rejects.add_malformed(file.path, batch.malformed)
            rejects.add(file.path, batch.rows.filter(pa.array(~verdict.passed)), verdict.reasons)
            read += len(rows) + len(batch.malformed)
            passed += int(verdict.passed.sum())
            fresh |= {row[identity]: row for row in compress(rows, verdict.passed)}
    if read == 0:
        raise InvalidInput(f"{files[0].path} holds no rows. Export it again, or remove it.")
    changed = {key: row for key, row in fresh.items() if _said(known.get(key)) != _said(row)}
    if changed:
        known |= changed
        lake_format.write(pa.Table.from_pylist(list(known.values()), schema=schema), staging / target.name)
        replace(staging / target.name, target)
    return DatasetReport(
        read=read,
        accepted=len(changed),
        duplicates=passed - len(changed),
        rejected=dict(rejects.counts),
        rejects_file=rejects.save(home.aside / "rejects" / f"{dataset}-{name}.parquet"),
        ignored_columns=tuple(ignored),
    )


def _said(row: Row | None) -> Row | None:
    """What the file said."""
    return row and {name: cell for name, cell in row.items() if name != "imported"}


def _titles(table: pa.Table, name: str | None, verdict: checks.Verdict) -> list[str]:
    if name is None:
        return [""] * len(table)
    try:
        titles = pc.fill_null(table[name].combine_chunks().cast(pa.string()), "")
    except pa.ArrowException:
        raise _unusable(name, table, "titles must be text") from None
    long = pc.greater(pc.utf8_length(titles), MAX_TITLE_CHARACTERS).to_numpy(zero_copy_only=False)
    verdict.refuse(long.astype(np.bool_), f"{name} has more than {MAX_TITLE_CHARACTERS} characters")
    titles_list: list[str] = titles.to_pylist()
    return titles_list


def _categories(table: pa.Table, name: str | None, verdict: checks.Verdict) -> list[list[str]]:
    """Lists of text, or text separated by `|`; blanks around and repetitions are dropped."""
    if name is None:
        return [[] for _ in range(len(table))]
    kind = table.schema.field(name).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    try:
        column = table[name].combine_chunks().cast(pa.list_(pa.string()) if is_list else pa.string())
    except pa.ArrowException:
        raise _unusable(name, table, "categories must be lists of text, or text separated by '|'") from None
    found = [(cell if is_list else cell.split("|")) if cell else [] for cell in column.to_pylist()]
    lists = [list(dict.fromkeys(text for part in cell if part and (text := part.strip()))) for cell in found]
    many = np.array([len(cell) > MAX_CATEGORIES for cell in lists], dtype=np.bool_)
    verdict.refuse(many, f"{name} has more than {MAX_CATEGORIES} entries")
    return lists


def _times(table: pa.Table, name: str | None, verdict: checks.Verdict) -> list[int | None]:
    if name is None:
        return [None] * len(table)
    found: list[int | None] = checks.times(table[name].combine_chunks(), name, verdict, optional=True).to_pylist()
    return found


def _attributes(table: pa.Table, ours: set[str | None]) -> tuple[list[str], list[str]]:
    """Each row's attributes as a JSON object, and the columns that cannot be attributes."""
    others = [name for name in table.column_names if name not in ours]
    ignored = [name for name in others if not _is_scalar(table.schema.field(name).type)]
    names = [name for name in others if name not in ignored]
    if len(names) > MAX_ATTRIBUTES:
        raise InvalidInput(f"{len(names)} columns would become attributes, at most {MAX_ATTRIBUTES} may. Drop some.")
    cells = [[_attribute(cell) for cell in table[name].to_pylist()] for name in names]
    rows = zip(*cells, strict=True) if names else iter([()] * len(table))
    objects = [{name: cell for name, cell in zip(names, row, strict=True) if cell is not None} for row in rows]
    return [msgspec.json.encode(attributes).decode() for attributes in objects], ignored


def _is_scalar(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    is_time = pa.types.is_date(inner) or pa.types.is_timestamp(inner)
    is_number = pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_decimal(inner)
    return bool(is_text or is_time or is_number or pa.types.is_boolean(inner) or pa.types.is_null(inner))


def _attribute(cell: Any) -> str | int | float | bool | None:
    """The cell as JSON can hold it; None (left out) for nulls, empty text and numbers that are not finite."""
    match cell:
        case Decimal():
            return float(cell) if cell.is_finite() else None
        case float():
            return cell if math.isfinite(cell) else None
        case datetime() | date():
            return cell.isoformat()
        case bool() | int() | str():
            return cell if cell != "" else None
    return None


def _unusable(name: str, table: pa.Table, rule: str) -> InvalidInput:
    return InvalidInput(f"Column {name!r} holds {table.schema.field(name).type}, {rule}. Convert or rename the column.")
