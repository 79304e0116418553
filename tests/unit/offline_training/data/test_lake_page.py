"""Other engines read the lake without our code, as docs/lake.md says."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import lake_format
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.columns import ERASURES
from feature_store.home import Home
from offline_training.data.erasures import CarriedOut
from offline_training.data.foreign_log import COLUMNS, import_log, log_file
from offline_training.data.sources import Mapping
from offline_training.progress import silent
from tests import golden_lake
from tests.events import KEYRING
from tests.lakes import put

PAGE = (Path(__file__).parents[4] / "docs" / "lake.md").read_text(encoding="utf-8")
VIEW, LIKES, UNLOGGED, CALIBRATION = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
COLUMN = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)
DATA_SETS = {
    heading: COLUMN.findall(text)
    for heading, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    if COLUMN.search(text)
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose lake has one of everything."""
    home = tmp_path_factory.mktemp("home")
    golden_lake.write(home)
    source = home / "theirs.parquet"
    pq.write_table(pa.table({"action": ["a"], "reward": [1.0], "propensity": [0.5]}), source)
    import_log(
        source, Home(home), "theirs", KEYRING, Mapping.parse((), COLUMNS), None, ManualClock(golden_lake.NOON), silent
    )
    assert log_file(home / "lake", "theirs").exists()
    put(home / "lake" / "erasures" / "erasures.parquet", ERASURES, CarriedOut({}).and_also({"eve": 5}).rows())
    return home


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in the home, anywhere in the world."""
    monkeypatch.chdir(home)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        connection.execute(VIEW)
        yield connection


def test_the_page_has_every_column_of_every_data_set(engine: duckdb.DuckDBPyConnection, home: Path) -> None:
    assert DATA_SETS.keys() == {path.name for path in (home / "lake").iterdir() if path.is_dir()}
    for name, columns in DATA_SETS.items():
        found = engine.execute(f"DESCRIBE FROM read_parquet('lake/{name}/**/*.parquet', hive_partitioning = false)")
        assert [row[:2] for row in found.fetchall()] == columns, name


def test_likes_by_item_and_day(engine: duckdb.DuckDBPyConnection) -> None:
    day = date(2027, 1, 15)
    assert engine.execute(LIKES).fetchall() == [(day, "a", 1), (day, "c", 1)]


def test_the_share_of_answers_whose_decision_the_log_does_not_have(engine: duckdb.DuckDBPyConnection) -> None:
    assert engine.execute(UNLOGGED).fetchall() == [(1 / 2,)]  # ann's has it, bob's has not, eve's purchase has none


def test_what_was_predicted_and_what_came(engine: duckdb.DuckDBPyConnection) -> None:
    assert engine.execute(CALIBRATION).fetchall() == [(0.5, 2, 0.5, 1 / 2)]  # bob's was withdrawn


def test_attributes_are_a_map(engine: duckdb.DuckDBPyConnection) -> None:
    told = "attributes['city'], CAST(attributes['age'] AS INT), attributes['number']"
    found = engine.execute(f"SELECT {told} FROM events WHERE kind = 'profile'")
    assert found.fetchall() == [("Köln", 42, '"42"')]


def test_pandas_reads_it(home: Path) -> None:
    events = pd.read_parquet(home / "lake" / "events")
    assert events["kind"].value_counts()["feedback"] == 4
    assert events["time"].min() == pd.Timestamp(datetime.fromtimestamp(golden_lake.NOON / 1000 - 5, UTC))
    [attributes] = events.loc[events["kind"] == "profile", "attributes"]
    assert dict(attributes)["city"] == "Köln"


def test_no_file_is_of_an_older_format(home: Path) -> None:
    assert not any(lake_format.is_old(path) for path in (home / "lake").rglob("*.parquet"))
