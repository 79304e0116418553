"""Imports interactions: checks them in batches, deals them to months, and removes duplicates month by month, so that
an import touches the months it tells of, and memory holds a part of one, however many rows there are."""

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.columns import INTERACTIONS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.lake_format import read, rows_in, stored, stored_schema
from feature_store.lake_path import LakePath, replace
from offline_training.data import checks
from offline_training.data.erasures import CarriedOut
from offline_training.data.lake import parquet_files
from offline_training.data.sources import Batch, Mapping, OnBytes, SourceFile, check_distinct, naming
from offline_training.data.staging import DatasetReport, Rejects
from offline_training.progress import Progress

_ROWS_AT_ONCE = 2_000_000
_KEY_CHARACTERS = string.ascii_letters + string.digits + "-_"
_MONTH = ds.partitioning(pa.schema([pa.field("month", pa.string())]), flavor="hive")
_IDENTITY = ["user", "item", "type", "time"]


def columns_of(file: SourceFile, mapping: Mapping) -> dict[str, str]:
    """Our column names -> the file's. Raises InvalidInput if a required one is missing, or one would be read as two."""
    columns = {ours: file.require(ours, mapping) for ours in ("user_id", "item_id", "timestamp")}
    optional = {ours: mapping.find(ours, file.schema.names) for ours in ("type", "value", "written")}
    columns |= {ours: theirs for ours, theirs in optional.items() if theirs}
    with naming(file.path):
        check_distinct(columns)
    return columns


def import_interactions(
    files: Sequence[SourceFile],
    home: Home,
    staging: Path,
    name: str,
    keyring: Keyring,
    mapping: Mapping,
    progress: Progress,
) -> DatasetReport:
    """Adds the files' interactions to `<lake>/interactions`, to one file of the name per month of their times.

    Duplicates (same user, item, type and time) of earlier rows or of the lake's are dropped, the first one stays. What
    was known of a user before their erasure is refused.
    Raises InvalidInput for an unreadable file, a column of an unusable type, or if there is no row at all.
    """
    rejects = Rejects()
    erased = CarriedOut.load(home.lake)
    total, before = max(sum(file.path.stat().st_size for file in files), 1), 0
    read = staged = 0
    waiting = INTERACTIONS.empty_table()
    for file in files:
        columns = columns_of(file, mapping)
        for batch in file.batches(list(columns.values()), _report_bytes(progress, before, total, file.path.name)):
            with naming(file.path):
                table = _check(batch, columns, file, rejects, keyring, erased)
            rejects.add_malformed(file.path, batch.malformed)
            read += len(batch.table) + len(batch.malformed)
            staged += len(table)
            waiting = pa.concat_tables([waiting, _pseudonymised(table, keyring)])
            if len(waiting) >= _ROWS_AT_ONCE:
                waiting = _deal(waiting, staging, staged)
        before += file.path.stat().st_size
    if read == 0:
        raise InvalidInput(f"{files[0].path} holds no rows. Export it again, with at least one.")
    _deal(waiting, staging, staged)
    accepted, months = 0, sorted(staging.glob("month=*"))
    for number, month in enumerate(months):
        progress(0.8 + 0.2 * number / len(months), "removing duplicates")
        accepted += _publish(month, home.lake / "interactions" / month.name, f"{name}.parquet")
    return DatasetReport(
        read=read,
        accepted=accepted,
        duplicates=staged - accepted,
        rejected=dict(rejects.counts),
        rejects_file=rejects.save(home.aside / "rejects" / f"interactions-{name}.parquet"),
    )


def _report_bytes(progress: Progress, before: int, total: int, name: str) -> OnBytes:
    return lambda done: progress(0.8 * min((before + done) / total, 1.0), f"reading {name}")


def _check(
    batch: Batch, columns: dict[str, str], file: SourceFile, rejects: Rejects, keyring: Keyring, erased: CarriedOut
) -> pa.Table:
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
    erased.refuse(user, pc.max_element_wise(time, written).to_numpy(zero_copy_only=False), keyring, verdict)
    passed = pa.array(verdict.passed)
    rejects.add(file.path, batch.rows.filter(pc.invert(passed)), verdict.reasons)
    return pa.table([user, item, kind, value, time, written], schema=INTERACTIONS).filter(passed)


def _pseudonymised(table: pa.Table, keyring: Keyring) -> pa.Table:
    """User keys in the place of user ids."""
    encoded = table["user"].combine_chunks().dictionary_encode()
    keys = [keyring.user_key(user) for user in encoded.dictionary.to_pylist()]
    return table.set_column(0, INTERACTIONS.field("user"), pa.array(keys, pa.string()).take(encoded.indices))


def _deal(rows: pa.Table, staging: Path, number: int) -> pa.Table:
    """Adds the rows to their months' folders, in files that sort as the numbers do; returns a table without any."""
    month = pc.strftime(rows["time"].cast(pa.timestamp("ms")), "%Y-%m")
    ds.write_dataset(
        rows.append_column("month", month),
        staging,
        format="parquet",
        partitioning=_MONTH,
        basename_template=f"{number:015}-{{i}}.parquet",
        existing_data_behavior="overwrite_or_ignore",
        max_partitions=max(1, pc.count_distinct(month).as_py()),
        use_threads=False,  # the rows stay in order
    )
    return INTERACTIONS.empty_table()


def _publish(staged: Path, folder: LakePath, name: str) -> int:
    """Moves a month's rows that are new into its folder; returns how many there are."""
    fresh, known = sorted(staged.glob("*.parquet")), parquet_files(folder)
    rows = sum(map(rows_in, [*fresh, *known]))
    parts = min(-(-rows // _ROWS_AT_ONCE), len(_KEY_CHARACTERS))
    aside, accepted = staged / "new", 0
    with pq.ParquetWriter(aside, stored_schema(INTERACTIONS)) as writer:
        for part in range(parts):  # of the users, by how their keys begin
            theirs = pc.utf8_slice_codeunits(ds.field("user"), 0, 1).isin(list(_KEY_CHARACTERS[part::parts]))
            found = _read(fresh, INTERACTIONS.names, theirs)
            new = _new(_read(known, _IDENTITY, theirs), found.select(_IDENTITY))
            writer.write_table(stored(found.take(pa.array(new))))
            accepted += len(new)
    if accepted:
        replace(aside, folder / name)
    return accepted


def _read(files: Sequence[LakePath], names: list[str], wanted: pc.Expression) -> pa.Table:
    nothing = INTERACTIONS.empty_table().select(names)
    return pa.concat_tables([nothing, *(read(file, INTERACTIONS, names, wanted) for file in files)])


def _new(known: pa.Table, rows: pa.Table) -> NDArray[np.int64]:
    """Numbers of the rows that are neither known nor were there before among themselves."""
    everything = pa.concat_tables([known, rows])
    everything = everything.append_column("row", pa.array(np.arange(len(everything))))
    first = everything.group_by(_IDENTITY).aggregate([("row", "min")])["row_min"].to_numpy()
    return np.sort(first[first >= len(known)]) - len(known)
