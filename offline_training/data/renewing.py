"""Imported data of an older format, written anew in the present one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import lake_format
from feature_store.contracts.columns import INTERACTIONS, ITEMS, USERS
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.rewriting import rewriting
from offline_training.data.lake import parquet_files
from offline_training.data.staging import staging_folder


def renew(home: Home) -> int:
    """Rewrites what is of an older format; returns how many files were. Raises Unavailable while an import, a training,
    a rollback or another rewriting is under way."""
    schemas = {"interactions": INTERACTIONS, "histories": INTERACTIONS, "items": ITEMS, "users": USERS}
    old = [(path, schema) for name, schema in schemas.items() for path in _old_files(home.lake / name)]
    if old:
        with staging_folder(home), rewriting(home) as rewrite:
            for path, schema in old:
                _rewrite(path, schema, rewrite.draft(path))
            rewrite.publish()
    return len(old)


def _old_files(directory: LakePath) -> list[LakePath]:
    return [path for path in parquet_files(directory) if lake_format.is_old(path)]


def _rewrite(path: LakePath, schema: pa.Schema, draft: Path) -> None:
    with pq.ParquetWriter(draft, lake_format.stored_schema(schema), compression="zstd") as writer:
        for rows in lake_format.batches(path, schema):
            writer.write_table(lake_format.stored(rows))
