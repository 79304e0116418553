"""Lakes for tests, written row by row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts import columns
from feature_store.contracts.events import Event
from feature_store.lake_format import stored
from streaming.lake_rows import row_of


def put(path: Path, schema: pa.Schema | None, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a file: of the lake, if there is a schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table if schema is None else stored(table), path)


def put_log(lake: Path, *events: Event, start: int = 0) -> None:
    """A file of one partition of a log, each event a record. start: the first one's offset."""
    rows = [{"offset": offset, "position": 0, **row_of(event)} for offset, event in enumerate(events, start)]
    name = f"{start}-{start + len(rows)}.parquet"
    put(lake / "events" / "log=x-y" / "partition=0" / name, columns.EVENTS, rows)
