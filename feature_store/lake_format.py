"""How rows of the lake stand in Parquet files: so that other engines read them as they are. There times are timestamps,
and attributes a map of texts; in memory times are ms since the epoch, and attributes the JSON text of an object.

This is format 2. Files of format 1, which hold what is in memory, are read as well, and rewritten by
`matchloop lake compact`. contracts.columns has the schemas in memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contracts.catalogue import Attributes, attribute_text, attribute_value
from feature_store.lake_path import LakePath

ATTRIBUTES = "attributes"
_TIMES = frozenset({"time", "written", "imported", "received", "history_times", "available_from", "available_until"})
_ROW_TIMES = frozenset({"time", "received"})
_UNKNOWN = 1 << 62  # later than all
_TIME = pa.timestamp("ms", "UTC")
_TEXTS = pa.map_(pa.string(), pa.string())
_decoder = msgspec.json.Decoder(Attributes)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """What a file has for the schema in memory."""
    return pa.schema([field.with_type(_stored_type(field)) for field in schema])


def stored(table: pa.Table) -> pa.Table:
    """What a file has for the rows."""
    for number, field in enumerate(table.schema):
        kind = _stored_type(field)
        if kind == _TEXTS and field.type != kind:
            table = table.set_column(number, field.with_type(kind), _texts(table.column(number)))
        elif kind != field.type:
            table = table.set_column(number, field.with_type(kind), table.column(number).cast(kind))
    return table


def write(table: pa.Table, path: Path) -> None:
    """Writes a file of the rows."""
    pq.write_table(stored(table), path, compression="zstd")


def read(
    path: LakePath,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    wanted: pc.Expression | None = None,
    since: int = 0,
) -> pa.Table:
    """The rows of a file, of either format, as in memory. columns: of the schema, all unless given; those that the file
    lacks are null. wanted: which rows; it names no time and no attributes. since: parts of the file that hold nothing
    from this time (ms) on are not read. Raises pyarrow.ArrowInvalid or OSError if it is no Parquet file."""
    picked = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    source = opened(path)
    file = _fragment(source)
    if since:
        if not (late := late_parts(source, since)):
            return picked.empty_table()
        file = file.subset(row_group_ids=late)
    return loaded(file.to_table(_schema_of(source, schema), picked.names, filter=wanted), picked)


def batches(
    path: LakePath, schema: pa.Schema, wanted: pc.Expression | None = None, size: int = 65_536
) -> Iterator[pa.Table]:
    """The wanted rows of a file as read has them, so many at a time in memory at most. wanted: names neither a time nor
    attributes."""
    source = opened(path)
    scanner = _fragment(source).scanner(
        _schema_of(source, schema), filter=wanted, batch_size=size, batch_readahead=1, fragment_readahead=1
    )
    for batch in scanner.to_batches():
        yield loaded(pa.Table.from_batches([batch]), schema)


def opened(path: LakePath) -> Any:
    """The file as pyarrow.parquet takes it, any number of times."""
    return path if isinstance(path, Path) else pa.PythonFile(path.open(), "r")


def rows_in(path: LakePath) -> int:
    """How many rows the file has, by its footer. Raises as read does."""
    return int(pq.read_metadata(opened(path)).num_rows)


def loaded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with the schema's columns, of a file of either format, as in memory."""
    if ATTRIBUTES in schema.names and pa.types.is_map(table.schema.field(ATTRIBUTES).type):
        number = table.schema.get_field_index(ATTRIBUTES)
        table = table.set_column(number, schema.field(ATTRIBUTES), _objects(table.column(number)))
    return table.cast(schema)


def late_parts(source: Any, since: int) -> list[int]:
    """Which row groups of the opened file may hold rows from a time (ms) on, by when things happened or were received;
    its footer says so. Raises as read does."""
    metadata = pq.read_metadata(source)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [number for number, group in enumerate(groups) if _newest(group) >= since]


def is_old(path: LakePath) -> bool:
    """Whether the file is of format 1."""
    held = pq.read_schema(opened(path))
    return any(field.type != _stored_type(field) for field in held)


def _fragment(source: Any) -> Any:
    import pyarrow.dataset as ds  # and pandas with it, which those that only write can do without
    from pyarrow.fs import LocalFileSystem

    if isinstance(source, Path):
        return ds.ParquetFileFormat().make_fragment(str(source), LocalFileSystem())
    return ds.ParquetFileFormat().make_fragment(source)


def _newest(group: pq.RowGroupMetaData) -> int:
    columns = (group.column(number) for number in range(group.num_columns))
    times = [column for column in columns if column.path_in_schema in _ROW_TIMES]
    said = [one.statistics for one in times if one.statistics is None or one.statistics.null_count < one.num_values]
    if any(statistics is None or not statistics.has_min_max for statistics in said):
        return _UNKNOWN
    return max((int(statistics.max_raw) for statistics in said), default=0)


def _stored_type(field: pa.Field) -> pa.DataType:
    if field.name == ATTRIBUTES:
        return _TEXTS
    if field.name not in _TIMES:
        return field.type
    return pa.list_(_TIME) if pa.types.is_list(field.type) else _TIME


def _schema_of(source: Any, schema: pa.Schema) -> pa.Schema:
    """The schema with attributes as the file has them: Arrow makes numbers of timestamps by itself, and no texts of
    maps."""
    if ATTRIBUTES not in schema.names:
        return schema
    number, held = schema.get_field_index(ATTRIBUTES), pq.read_schema(source)
    return schema.set(number, schema.field(number).with_type(held.field(ATTRIBUTES).type))


def _texts(objects: pa.ChunkedArray) -> pa.Array:
    if objects.null_count == len(objects):
        return pa.nulls(len(objects), _TEXTS)
    read = (None if one is None else _decoder.decode(one) for one in objects.to_pylist())
    rows = [None if one is None else [(name, attribute_text(value)) for name, value in one.items()] for one in read]
    return pa.array(rows, _TEXTS)


def _objects(texts: pa.ChunkedArray) -> pa.Array:
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), pa.string())
    rows = (None if one is None else {name: attribute_value(text) for name, text in one} for one in texts.to_pylist())
    return pa.array([None if one is None else msgspec.json.encode(one).decode() for one in rows], pa.string())
