"""Imports a log of somebody else's decisions, to evaluate policies on: what was done, how likely, and what it earned.

One row is one shown item: `action` and its `propensity` (the chance that it was put at its position), the `reward`, and
optionally

    decision     an id: of two rows of one decision and position the first counts
    user         whose rows belong together; without it every row is somebody else's
    timestamp    when
    position     from 1; without it 1
    candidates   how many actions there were to choose from, or the list of them
    target       the chance that another policy would have done the same
    category     of the action, for estimates that share what is known of a category's actions
    context      columns with commas between: numbers as they are, texts hashed

Rows are read in batches and checked whole columns at a time; memory holds a batch, and one number per row if decisions
are named.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.arrays import Bool, Float64
from feature_store.contracts.clock import Clock
from feature_store.contracts.columns import FOREIGN_LOG
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.lake_format import stored, stored_schema
from feature_store.lake_path import LakePath, replace
from offline_training.data import checks
from offline_training.data.sources import INTERACTIONS, Batch, Mapping, SourceFile, check_distinct, find_sources, naming
from offline_training.data.staging import DatasetReport, Rejects, staging_folder
from offline_training.progress import Progress

COLUMNS = {
    "decision": ("decision", "decision_id"),
    "user": ("user", "user_id"),
    "timestamp": ("timestamp", "time"),
    "action": ("action", "item_id"),
    "position": ("position",),
    "reward": ("reward", "click"),
    "propensity": ("propensity", "pscore"),
    "candidates": ("candidates",),
    "target": ("target",),
    "category": ("category",),
    "context": (),
}
_REQUIRED = ("action", "reward", "propensity")
_TEXT_FEATURES = 16  # that texts of the context are hashed to
_AHEAD_MS = 300_000
_FILE = "log.parquet"
_DECISION = pa.field("decision", pa.uint64())  # while it is read: a hash of decision and position


def import_log(
    source: Path,
    home: Home,
    name: str,
    keyring: Keyring,
    mapping: Mapping,
    rewards: tuple[float, float] | None,
    clock: Clock,
    progress: Progress,
    propensity: float | None = None,
) -> DatasetReport:
    """Writes the log at `source` (a file, or a directory of parts) to `foreign/<name>/` of the lake, in place of an
    older one of the name. User ids become keys. Rows that break a rule are left out, counted, and listed. propensity:
    of every row, where none is in the files: a third of a test that sent three letters at random.

    Raises InvalidInput for data that cannot be read as a whole, naming file, column and remedy, and Unavailable while
    another import runs.
    """
    files = find_sources(source)[INTERACTIONS] if source.is_file() else _parts(source)
    columns = [_columns_of(file, mapping, propensity) for file in files]
    context = [part.strip() for part in mapping.columns.get("context", "").split(",") if part.strip()]
    rejects, latest = Rejects(), clock.now_ms() + _AHEAD_MS
    read = written = 0
    named = any("decision" in found for found in columns)
    with staging_folder(home) as staging:
        staged = staging / _FILE
        schema = stored_schema(FOREIGN_LOG.append(_DECISION))
        total, before = max(sum(file.path.stat().st_size for file in files), 1), 0
        with pq.ParquetWriter(staged, schema, compression="zstd", compression_level=1) as writer:
            for file, found in zip(files, columns, strict=True):
                texts = [*found.values(), *context]
                start = before

                def report(done: int, start: int = start, file: SourceFile = file) -> None:
                    progress(0.9 * min((start + done) / total, 1.0), f"reading {file.path.name}")

                for batch in file.batches(list(dict.fromkeys(texts)), report):
                    with naming(file.path):
                        table = _checked(batch, found, context, file, rejects, keyring, rewards, latest, propensity)
                    rejects.add_malformed(file.path, batch.malformed)
                    read += len(batch.table) + len(batch.malformed)
                    written += len(table)
                    writer.write_table(stored(table))
                before += file.path.stat().st_size
        if read == 0:
            raise InvalidInput(f"{files[0].path} holds no rows. Export it again, with at least one.")
        if written == 0:
            reasons = "; ".join(f"{count:,}: {reason}" for reason, count in sorted(rejects.counts.items()))
            raise InvalidInput(f"No row of {source} can be used ({reasons}).")
        progress(0.9, "removing duplicates")
        duplicates = _without_duplicates(staged, staging / "unique.parquet") if named else 0
        replace(staging / "unique.parquet" if duplicates else staged, home.lake / "foreign" / name / _FILE)
    progress(1.0, "imported")
    return DatasetReport(
        read=read,
        accepted=written - duplicates,
        duplicates=duplicates,
        rejected=dict(rejects.counts),
        rejects_file=rejects.save(home.aside / "rejects" / f"log-{name}.parquet"),
    )


def log_file(lake: LakePath, name: str) -> LakePath:
    """Where a log lies. Raises InvalidInput if there is none of the name."""
    path = lake / "foreign" / name / _FILE
    if not path.is_file():
        there = sorted(folder.name for folder in (lake / "foreign").glob("*") if (folder / _FILE).is_file())
        raise InvalidInput(
            f"There is no log {name!r} in {lake}. There are: {', '.join(there) or 'none'}. Import one with "
            "`matchloop import FILE --as log`."
        )
    return path


def _parts(source: Path) -> list[SourceFile]:
    if not source.is_dir():
        raise InvalidInput(f"{source} is neither a directory nor a .parquet or .csv file.")
    paths = sorted(
        path for path in source.iterdir() if path.suffix in (".parquet", ".csv") and path.name[0] not in "._"
    )
    if not paths:
        raise InvalidInput(f"{source} holds no .parquet or .csv file.")
    return [file for path in paths for file in find_sources(path)[INTERACTIONS]]


def _columns_of(file: SourceFile, mapping: Mapping, propensity: float | None) -> dict[str, str]:
    """Our column names -> the file's, but for the context. Raises InvalidInput if a required one is missing, or is
    there beside one propensity of all rows."""
    if propensity is not None and (theirs := mapping.find("propensity", file.schema.names)):
        raise InvalidInput(f"{file.path} has propensities in {theirs!r}: leave out --propensity, or the column.")
    found = {ours: file.require(ours, mapping) for ours in _REQUIRED if ours != "propensity" or propensity is None}
    for ours in COLUMNS:
        if ours not in found and ours != "context" and (theirs := mapping.find(ours, file.schema.names)):
            found[ours] = theirs
    with naming(file.path):
        check_distinct(found)
    for part in mapping.columns.get("context", "").split(","):
        if part.strip() and part.strip() not in file.schema.names:
            raise InvalidInput(f"{file.path} has no column {part.strip()!r}, which the context is to hold.")
    return found


def _checked(
    batch: Batch,
    columns: dict[str, str],
    context: Sequence[str],
    file: SourceFile,
    rejects: Rejects,
    keyring: Keyring,
    rewards: tuple[float, float] | None,
    latest: int,
    same_propensity: float | None,
) -> pa.Table:
    """The good rows in our form; the others go to rejects."""
    table, n = batch.table, len(batch.table)
    verdict = checks.Verdict(n)

    def column(ours: str) -> pa.Array:
        return table[columns[ours]].combine_chunks()

    def number(ours: str) -> Float64:
        found: Float64 = checks.values(column(ours), columns[ours], verdict).to_numpy(zero_copy_only=False)
        return found

    action = checks.ids(column("action"), columns["action"], verdict, from_csv=file.is_csv)
    reward = number("reward")
    if same_propensity is None:
        propensity = number("propensity")
        verdict.refuse(propensity <= 0, f"{columns['propensity']} is not above 0: whatever was shown had a chance")
        verdict.refuse(propensity > 1, f"{columns['propensity']} is above 1")
    else:
        propensity = np.full(n, same_propensity)
    if rewards is not None:
        least, most = rewards
        verdict.refuse((reward < least) | (reward > most), f"{columns['reward']} is outside {least:g}..{most:g}")
    position = np.ones(n)
    if "position" in columns:
        position = number("position")
        verdict.refuse(
            (position < 1) | (position > 1_000) | (position % 1 != 0), f"{columns['position']} is no position"
        )
    user, time, target = pa.nulls(n, pa.string()), pa.nulls(n, pa.int64()), pa.nulls(n, pa.float64())
    if "user" in columns:
        user = _keys(checks.ids(column("user"), columns["user"], verdict, from_csv=file.is_csv), keyring)
    if "timestamp" in columns:
        time = checks.times(column("timestamp"), columns["timestamp"], verdict)
        verdict.refuse(time.to_numpy() > latest, f"{columns['timestamp']} is more than 5 minutes ahead of now")
    if "target" in columns:
        chance = number("target")
        verdict.refuse((chance < 0) | (chance > 1), f"{columns['target']} is outside 0..1")
        target = pa.array(chance)
    category = pa.nulls(n, pa.string())
    if "category" in columns:
        category = checks.ids(column("category"), columns["category"], verdict, from_csv=file.is_csv)
    choices = pa.nulls(n, pa.int32())
    if "candidates" in columns:
        choices = _choices(column("candidates"), columns["candidates"], verdict)
    decision = pa.nulls(n, pa.uint64())
    if "decision" in columns:
        names = checks.ids(column("decision"), columns["decision"], verdict, from_csv=file.is_csv)
        hashes = pd.util.hash_array(names.to_pandas().to_numpy(dtype=object), categorize=True)
        decision = pa.array(hashes * np.uint64(1_000_003) + np.nan_to_num(position).astype(np.uint64))
    features = _features(table, context, verdict)
    passed = pa.array(verdict.passed)
    rejects.add(file.path, batch.rows.filter(pc.invert(passed)), verdict.reasons)
    safe = np.where(verdict.passed, position, 1).astype(np.int32)
    parts = [user, time, action, pa.array(reward), pa.array(propensity), pa.array(safe), choices, target, features]
    return pa.table([*parts, category, decision], schema=FOREIGN_LOG.append(_DECISION)).filter(passed)


def _keys(users: pa.StringArray, keyring: Keyring) -> pa.Array:
    encoded = users.dictionary_encode()
    keys = [keyring.user_key(user) for user in encoded.dictionary.to_pylist()]
    return pa.array(keys, pa.string()).take(encoded.indices)


def _choices(column: pa.Array, name: str, verdict: checks.Verdict) -> pa.Array:
    """How many actions there were: the length of a list, or the number itself."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        count = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.float64)
    else:
        count = checks.values(column, name, verdict).to_numpy(zero_copy_only=False)
    wrong: Bool = ~((count >= 1) & (count < 2**31))
    verdict.refuse(wrong, f"{name} names no action")
    return pa.array(np.where(wrong, 1, count).astype(np.int32))


def _features(table: pa.Table, context: Sequence[str], verdict: checks.Verdict) -> pa.Array:
    """The context as numbers, a list per row."""
    numbers: list[Float64] = []
    hashed = np.zeros((len(table), _TEXT_FEATURES)) if context else None
    texts = False
    for name in context:
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            assert hashed is not None
            texts = True
            encoded = pc.fill_null(column, "").dictionary_encode()
            places = [
                zlib.crc32(f"{name}={value}".encode()) % _TEXT_FEATURES for value in encoded.dictionary.to_pylist()
            ]
            at = np.array(places, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
            hashed[np.arange(len(table)), at] += 1.0
        else:
            numbers.append(checks.values(column, name, verdict).to_numpy(zero_copy_only=False))
    parts = [*(column[:, None] for column in numbers), *([hashed] if texts and hashed is not None else [])]
    flat = np.concatenate(parts, axis=1) if parts else np.zeros((len(table), 0))
    offsets = np.arange(len(table) + 1, dtype=np.int32) * flat.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.nan_to_num(flat).ravel()))


def _without_duplicates(staged: Path, unique: Path) -> int:
    """Rewrites the file without rows whose decision and position were there before, if there are any; returns how
    many."""
    hashes = pq.read_table(staged, columns=[_DECISION.name])[_DECISION.name].to_numpy()
    _, first = np.unique(hashes, return_index=True)
    duplicates = len(hashes) - len(first)
    if duplicates:
        kept = np.zeros(len(hashes), np.bool_)
        kept[first] = True
        start = 0
        with pq.ParquetFile(staged) as file, pq.ParquetWriter(unique, file.schema_arrow) as writer:
            for batch in file.iter_batches():
                writer.write_batch(batch.filter(pa.array(kept[start : start + len(batch)])))
                start += len(batch)
    return duplicates
