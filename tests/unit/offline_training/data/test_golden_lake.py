"""Lakes of every format that was ever written, kept under tests/golden, and read by today's code.

Add one with tests/golden_lake.py when the format changes, were it by a column, and keep those that can still be read.
"""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_store import lake_format
from feature_store.contracts.columns import INTERACTIONS, USERS
from feature_store.contracts.events import SCHEMA_VERSION, decode, encode
from feature_store.home import Home
from offline_training.data.lake import catalogue_changes, parquet_files
from offline_training.data.renewing import renew
from streaming.lake_events import coverage, read_events
from streaming.lake_repair import check
from tests import golden_lake
from tests.events import KEYRING

GOLDEN = Path(__file__).parents[3] / "golden"
LAKES = sorted((GOLDEN / "lake").iterdir())
FIRST_EVENTS = 11  # of the first lakes and logs, which lack kinds of later ones
LOGS = sorted((GOLDEN / "log").iterdir())


def holds_what_was_written(home: Path) -> None:
    lake = home / "lake"
    assert check(lake) == []
    reached = coverage(lake, golden_lake.LOG, 0)
    assert reached >= FIRST_EVENTS
    assert [event for _, event in read_events(lake, golden_lake.LOG, 0, 0)] == golden_lake.EVENTS[:reached]
    imported, changes = catalogue_changes(lake)
    assert imported == golden_lake.IMPORTED_ITEMS
    assert sorted((change.id, repr(change.item)) for change in changes) == sorted(
        (name, repr(item)) for name, item in golden_lake.CHANGES
    )
    tables = [lake_format.read(file, INTERACTIONS) for file in parquet_files(lake / "interactions")]
    known = [(KEYRING.user_key(user), *rest, None) for user, *rest in golden_lake.INTERACTIONS]
    assert [tuple(row.values()) for table in tables for row in table.to_pylist()] == known
    [users] = parquet_files(lake / "users")
    [row] = lake_format.read(users, USERS).to_pylist()
    assert (row["user"], row["imported"]) == (KEYRING.user_key("ann"), golden_lake.NOON)


@pytest.mark.parametrize("home", LAKES, ids=lambda home: home.name)
def test_a_lake_is_read_as_it_was_written(home: Path) -> None:
    holds_what_was_written(home)


@pytest.mark.parametrize("home", LAKES, ids=lambda home: home.name)
def test_what_was_imported_is_renewed_and_says_the_same(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    imported = [path for name in ("interactions", "items", "users") for path in parquet_files(tmp_path / "lake" / name)]
    old = sum(map(lake_format.is_old, imported))
    assert old == (4 if home.name == "1" else 0)
    assert renew(Home(tmp_path)) == old
    assert not any(map(lake_format.is_old, imported))
    holds_what_was_written(tmp_path)


def test_the_newest_lake_is_what_is_written_today(tmp_path: Path) -> None:
    golden_lake.write(tmp_path)
    newest = max(LAKES, key=lambda home: int(home.name))
    assert _schemas(tmp_path) == _schemas(newest), "The format changed: keep a lake of it, see tests/golden_lake.py."


@pytest.mark.parametrize("folder", LOGS, ids=lambda folder: folder.name)
def test_records_of_the_log_are_read_as_they_were_written(folder: Path) -> None:
    records = sorted(folder.iterdir())
    assert len(records) >= FIRST_EVENTS
    held = golden_lake.EVENTS[: len(records)]
    assert [decode(record.read_bytes()) for record in records] == [[event] for event in held]


def test_the_newest_records_are_what_is_written_today() -> None:
    newest = max(LOGS, key=lambda folder: [int(part) for part in folder.name.split(".")])
    assert newest.name.startswith(f"{SCHEMA_VERSION}.")
    written = [encode([event]) for event in golden_lake.EVENTS]
    assert written == [record.read_bytes() for record in sorted(newest.iterdir())], "The events changed: keep these."


def _schemas(home: Path) -> dict[str, str]:
    """What each data set's files are, by the data set."""
    files = parquet_files(home / "lake")
    return {file.relative_to(home / "lake").parts[0]: pq.read_schema(file).to_string() for file in files}
