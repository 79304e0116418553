"""Imports interactions: checks them in batches, deals them into buckets by user, and removes duplicates bucket by
bucket, so that memory holds one bucket, however many rows there are."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.columns import INTERACTIONS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from offline_training.data import checks
from offline_training.data.sources import Batch, Mapping, OnBytes, SourceFile, naming
from offline_training.data.staging import DatasetReport, Rejects
from offline_training.progress import Progress

# Files of the lake are named NAME-BUCKET.parquet and a bucket is only compared with files of its own: do not change.
_BUCKETS = 8
_IDENTITY = ["user", "item", "type", "time"]


def columns_of(file: SourceFile, mapping: Mapping) -> dict[str, str]:
    """Our column names -> the file's. Raises InvalidInput if a required one is missing."""
    columns = {ours: file.require(ours, mapping) for ours in ("user_id", "item_id", "timestamp")}
    optional = {ours: mapping.find(ours, file.schema.names) for ours in ("type", "value", "written")}
    return columns | {ours: theirs for ours, theirs in optional.items() if theirs}


def import_interactions(
    files: Sequence[SourceFile],
    lake: Path,
    staging: Path,
    name: str,
    keyring: Keyring,
    mapping: Mapping,
    progress: Progress,
) -> DatasetReport:
    """Adds the files' interactions to `<lake>/interactions`, in files that begin with the name.

    Duplicates (same user, item, type and time) of earlier rows or of the lake's are dropped, the first one stays.
    Raises InvalidInput for an unreadable file, a column of an unusable type, or if there is no row at all.
    """
    rejects = Rejects()
    total, before = max(sum(file.path.stat().st_size for file in files), 1), 0
    read = staged = 0
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pq.ParquetWriter(staging / f"{bucket}.parquet", INTERACTIONS))
            for bucket in range(_BUCKETS)
        ]
        for file in files:
            columns = columns_of(file, mapping)
            for batch in file.batches(list(columns.values()), _report_bytes(progress, before, total, file.path.name)):
                with naming(file.path):
                    table = _check(batch, columns, file, rejects)
                rejects.add_malformed(file.path, batch.malformed)
                read += len(batch.table) + len(batch.malformed)
                staged += len(table)
                table, buckets = _pseudonymised(table, keyring)
                for bucket in np.unique(buckets):
                    writers[bucket].write_table(table.filter(pa.array(buckets == bucket)))
            before += file.path.stat().st_size
    if read == 0:
        raise InvalidInput(f"{files[0].path} holds no rows. Export it again, with at least one.")
    accepted = 0
    (lake / "interactions").mkdir(exist_ok=True)
    for bucket in range(_BUCKETS):
        progress(0.8 + 0.2 * bucket / _BUCKETS, "removing duplicates")
        accepted += _publish(staging / f"{bucket}.parquet", lake / "interactions", f"{name}-{bucket}.parquet")
    return DatasetReport(
        read=read,
        accepted=accepted,
        duplicates=staged - accepted,
        rejected=dict(rejects.counts),
        rejects_file=rejects.save(lake / "rejects" / f"interactions-{name}.parquet"),
    )


def _report_bytes(progress: Progress, before: int, total: int, name: str) -> OnBytes:
    return lambda done: progress(0.8 * min((before + done) / total, 1.0), f"reading {name}")


def _check(batch: Batch, columns: dict[str, str], file: SourceFile, rejects: Rejects) -> pa.Table:
    """The good rows with user ids in the place of keys; the others go to rejects."""
    table = batch.table
    verdict = checks.Verdict(len(table))

    def column(ours: str) -> pa.Array:
        return table[columns[ours]].combine_chunks()

    user = checks.ids(column("user_id"), columns["user_id"], verdict, from_csv=file.is_csv)
    item = checks.ids(column("item_id"), columns["item_id"], verdict, from_csv=file.is_csv)
    time = checks.times(column("timestamp"), columns["timestamp"], verdict)
    if "type" in columns:
        kind = checks.kinds(column("type"), columns["type"], verdict)
    else:
        kind = pa.repeat(pa.scalar("rating" if "value" in columns else "click"), len(table))
    if "value" in columns:
        value = checks.values(column("value"), columns["value"], verdict)
    else:
        value = pa.repeat(pa.scalar(1.0), len(table))
    if "written" in columns:  # a row without it is refused: taken as known at once, it might tell of its future
        written = checks.times(column("written"), columns["written"], verdict)
    else:
        written = pa.nulls(len(table), pa.int64())
    passed = pa.array(verdict.passed)
    rejects.add(file.path, batch.rows.filter(pc.invert(passed)), verdict.reasons)
    return pa.table([user, item, kind, value, time, written], schema=INTERACTIONS).filter(passed)


def _pseudonymised(table: pa.Table, keyring: Keyring) -> tuple[pa.Table, NDArray[np.int64]]:
    """User keys in the place of user ids, and each row's bucket."""
    encoded = table["user"].combine_chunks().dictionary_encode()
    keys = [keyring.user_key(user) for user in encoded.dictionary.to_pylist()]
    of_key = np.array([ord(key[0]) % _BUCKETS for key in keys], dtype=np.int64)
    rows = encoded.indices.to_numpy()
    users = pa.array(keys, pa.string()).take(encoded.indices)
    return table.set_column(0, INTERACTIONS.field("user"), users), of_key[rows]


def _publish(staged: Path, folder: Path, name: str) -> int:
    """Moves the rows that are new into the folder; returns how many there are."""
    rows = pq.read_table(staged)
    bucket = name.rpartition("-")[2]
    known = [pq.read_table(path, columns=_IDENTITY) for path in sorted(folder.glob(f"*-{bucket}"))]
    old = sum(len(table) for table in known)
    everything = pa.concat_tables([*known, rows.select(_IDENTITY)])
    everything = everything.append_column("row", pa.array(np.arange(len(everything))))
    first = everything.group_by(_IDENTITY).aggregate([("row", "min")])["row_min"].to_numpy()
    new = np.sort(first[first >= old]) - old
    if not len(new):
        return 0
    aside = staged.with_name(f"new-{bucket}")
    pq.write_table(rows.take(pa.array(new)), aside)
    aside.replace(folder / name)
    return len(new)
