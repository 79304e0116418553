"""Few files in place of many, the same events, and nothing that a namespace needs goes by its age."""

import shutil
from pathlib import Path

import pytest

from feature_store import rewriting
from feature_store.contracts.events import Event
from feature_store.definitions import DAY_MS
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.lake_format import is_old
from feature_store.namespace import Namespace, Start
from feature_store.rewriting import reading
from feature_store.sums import NO_ROWS
from streaming.lake_compaction import Compacted, compact
from streaming.lake_events import coverage, first_held, read_events
from streaming.lake_files import all_stretches, partition_folder
from streaming.lake_repair import check
from streaming.settings import LakeSettings
from tests import golden_lake
from tests.events import decision
from tests.lakes import put_log

LOG = "x-y"
GOLDEN = Path(__file__).parents[2] / "golden" / "lake"
DAYS = 400


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A file of two decisions for each of 400 days."""
    for day in range(DAYS):
        put_log(tmp_path / "lake", *_events(day), start=2 * day)
    return Home(tmp_path)


def _events(day: int) -> list[Event]:
    return [decision(f"{day}-{n}", day * DAY_MS + n, ["a"]) for n in (0, 1)]


def _ranges(home: Home) -> list[str]:
    return [one.path.name for one in all_stretches(partition_folder(home.lake / "events", LOG, 0))]


def _expected(since: int = 0) -> list[tuple[int, Event]]:
    return [(2 * day + n, event) for day in range(since, DAYS) for n, event in enumerate(_events(day))]


def test_a_year_of_small_files_becomes_one_that_holds_the_same(home: Home) -> None:
    assert compact(home, LakeSettings(), 0) == Compacted(DAYS, 1, 0, 0)
    assert _ranges(home) == ["0-800.parquet"]
    assert list(read_events(home.lake, LOG, 0, 0)) == _expected()
    assert coverage(home.lake, LOG, 0) == 800
    assert check(home.lake) == []
    assert compact(home, LakeSettings(), 0) == Compacted(0, 0, 0, 0)


def test_files_of_an_older_format_become_files_of_the_present_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    shutil.copytree(GOLDEN / "1" / "lake" / "events", home.aside / "events")
    before = list(read_events(home.lake, golden_lake.LOG, 0, 0))
    assert compact(home, LakeSettings(), 0) == Compacted(0, 0, 2, 0)
    assert list(read_events(home.lake, golden_lake.LOG, 0, 0)) == before
    assert not any(map(is_old, home.lake.rglob("*.parquet")))
    assert compact(home, LakeSettings(), 0) == Compacted(0, 0, 0, 0)


def test_it_goes_on_where_it_was_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rewriting, "_complete", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(home, LakeSettings(), 0)
    with reading(home):
        assert _ranges(home) == ["0-800.parquet"]
        assert list(read_events(home.lake, LOG, 0, 0)) == _expected()


def test_who_reads_goes_on_with_the_files_that_were_there(home: Home) -> None:
    with reading(home):
        events = read_events(home.lake, LOG, 0, 0)
        first = next(events)
        with rewriting.rewriting(home) as rewrite:  # what compaction works in may begin
            assert len(rewrite) == 0
        assert [first, *events] == _expected()
    compact(home, LakeSettings(), 0)
    assert list(read_events(home.lake, LOG, 0, 0)) == _expected()


def test_what_is_too_old_goes_but_not_what_a_namespace_begins_before(home: Home) -> None:
    now, settings = DAYS * DAY_MS, LakeSettings(keep_days=100)
    Namespace(
        id="r-1", release="r", log=LOG, offsets=[100], created=0, graph=Graph(1), base=NO_ROWS, starts=[Start()]
    ).save(home.namespaces)  # fmt: skip
    assert compact(home, settings, now).expired == 50
    assert first_held(home.lake, LOG, 0) == 100
    assert list(read_events(home.lake, LOG, 0, 100)) == _expected(50)

    (home.namespaces / "r-1").rename(home.root / "gone")
    compact(home, settings, now)
    # What was merged in between goes when all of it is too old.
    assert check(home.lake) == []
    assert list(read_events(home.lake, LOG, 0, 700)) == _expected(350)
