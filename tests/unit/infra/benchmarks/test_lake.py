"""The lake bench's lakes are what the sink writes, and a fortnight of one is a fortnight."""

import pytest

from feature_store.contracts.columns import EVENTS
from feature_store.definitions import DAY_MS
from feature_store.home import Home
from infra.benchmarks import lake
from offline_training.progress import silent
from streaming.lake_events import coverage, first_since, read_events
from streaming.lake_files import partition_folder, read_all
from streaming.lake_repair import check

DAYS, DECISIONS = 16, 24  # 12 in each partition, each with an event, in six files


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    lake.generate(home.aside, DAYS, DECISIONS, 3, silent)
    return home


def test_it_holds_what_was_asked_for(home: Home) -> None:
    assert len(list(home.aside.rglob("*.parquet"))) == DAYS * 2 * 6
    assert check(home.aside) == []
    assert [coverage(home.aside, "bench", partition) for partition in (0, 1)] == [DAYS * DECISIONS] * 2


def test_a_fortnight_is_found_by_time(home: Home) -> None:
    since = lake.START + 2 * DAY_MS
    start = first_since(home.aside, "bench", 0, since)
    assert start == 2 * DECISIONS
    assert all(event.time >= since for _, event in read_events(home.aside, "bench", 0, start))
    folder = partition_folder(home.aside / "events", "bench", 0)
    assert len(read_all(folder, EVENTS, ["offset"], lake.REPORTED, since)) == 14 * DECISIONS
    assert first_since(home.aside, "bench", 0, lake.START + DAYS * DAY_MS) == DAYS * DECISIONS


def test_steps_are_a_table_for_people() -> None:
    step = {"seconds": 1.5, "memory_mb": 20.0, "found": 1_000}
    found = {"28 days": {"files": 9, "check": step}, "growth": {}, "400 days": {"files": 99, "check": step}}
    assert lake.rows(found)[1] == ["check", "1.500", "20", "1,000", "1.500", "20", "1,000"]
