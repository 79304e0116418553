"""Imports a directory of interactions, items and users into the lake."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.contracts.manifest import file_hash
from feature_store.home import Home
from offline_training.data.descriptions import import_items, import_users
from offline_training.data.interactions import columns_of, import_interactions
from offline_training.data.sources import INTERACTIONS, ITEMS, USERS, Mapping, SourceFile, find_sources
from offline_training.data.staging import DatasetReport, staging_folder
from offline_training.progress import Progress, section


@dataclass(frozen=True)
class ImportReport:
    """What became of the rows; None for a data set that the source does not have."""

    interactions: DatasetReport
    items: DatasetReport | None
    users: DatasetReport | None


def import_data(
    source: Path,
    home: Home,
    keyring: Keyring,
    mapping: Mapping,
    clock: Clock,
    progress: Progress,
    newlines_in_values: bool = False,
) -> ImportReport:
    """Adds the data at `source`, in the import format (see sources.py), to the lake.

    User ids become keys. Rows that break a rule are left out, counted, and listed with file, row and reason in
    `<home>/lake/rejects/`. Importing the same data again changes nothing. Interrupted, it leaves no file half written;
    run again, it completes. newlines_in_values: quoted values of CSV files may hold line breaks.

    Raises InvalidInput for data that cannot be read as a whole, naming file, column and remedy, and Unavailable while
    another import runs.
    """
    sources = find_sources(source, newlines_in_values)
    _check_columns(sources, mapping)
    items = users = None
    with staging_folder(home) as staging:
        progress(0.0, "reading")
        name = _name(sources[INTERACTIONS], keyring, mapping)
        part = section(progress, 0.0, 0.8)
        interactions = import_interactions(sources[INTERACTIONS], home, staging, name, keyring, mapping, part)
        if ITEMS in sources:
            name, part = _name(sources[ITEMS], keyring, mapping), section(progress, 0.8, 0.9)
            items = import_items(sources[ITEMS], home, staging, name, mapping, part)
        if USERS in sources:
            name, part = _name(sources[USERS], keyring, mapping), section(progress, 0.9, 1.0)
            users = import_users(sources[USERS], home, staging, name, keyring, mapping, clock.now_ms(), part)
    progress(1.0, "imported")
    return ImportReport(interactions, items, users)


def _check_columns(sources: dict[str, list[SourceFile]], mapping: Mapping) -> None:
    """Refuses what can be refused before anything is written."""
    files = [file for group in sources.values() for file in group]
    for ours, theirs in mapping.columns.items():
        if not any(theirs in file.schema.names for file in files):
            found = "; ".join(f"{file.path.name}: {', '.join(file.schema.names)}" for file in files[:5])
            raise InvalidInput(f"No file has the column {theirs!r} that {ours} is mapped to. Found: {found}.")
    for file in sources[INTERACTIONS]:
        columns_of(file, mapping)
    for dataset, identity in ((ITEMS, "item_id"), (USERS, "user_id")):
        for file in sources.get(dataset, []):
            file.require(identity, mapping)


def _name(files: Sequence[SourceFile], keyring: Keyring, mapping: Mapping) -> str:
    """Names what an import writes: the same for the same files, mapping and installation."""
    digest = hashlib.sha256(repr((sorted(mapping.columns.items()), keyring.user_key(""))).encode())
    for file in files:
        digest.update(f"\n{file.path.name} {file_hash(file.path)}".encode())
    return digest.hexdigest()[:16]
