"""The files of a partition: whole, or said where not."""

from pathlib import Path

import pytest

from feature_store.contracts.errors import LakeDamaged
from feature_store.contracts.events import Event, Tick
from streaming import lake_files
from streaming.lake_events import coverage, first_held, read_events
from streaming.lake_files import Ticks, partition_folder
from tests.events import decision
from tests.lakes import put_log

LOG = "x-y"


def _put(lake: Path, start: int, end: int) -> None:
    put_log(lake, *map(_event, range(start, end)), start=start)


def _event(number: int) -> Event:
    return decision(f"d{number}", number, ["a"])


def _folder(lake: Path) -> Path:
    return partition_folder(lake / "events", LOG, 0)


def _read(lake: Path, start: int = 0) -> list[tuple[int, Event]]:
    return list(read_events(lake, LOG, 0, start))


def test_a_hole_is_named_and_does_not_matter_to_who_begins_behind_it(tmp_path: Path) -> None:
    _put(tmp_path, 0, 3)
    _put(tmp_path, 5, 7)
    with pytest.raises(LakeDamaged, match=r"offsets 3 to 4 of .*partition=0 in the lake are missing.*lake repair"):
        _read(tmp_path)
    assert _read(tmp_path, 5) == [(5, _event(5)), (6, _event(6))]


def test_an_overlap_is_named(tmp_path: Path) -> None:
    _put(tmp_path, 0, 3)
    _put(tmp_path, 2, 5)
    with pytest.raises(LakeDamaged, match=r"offsets 2 to 2 .* held twice"):
        _read(tmp_path)


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    _put(tmp_path, 0, 3)
    _put(tmp_path, 3, 5)
    torn = _folder(tmp_path) / "3-5.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(LakeDamaged, match=r"3-5\.parquet in the lake cannot be read"):
        _read(tmp_path)


def test_a_file_within_a_wider_one_does_not_count(tmp_path: Path) -> None:
    _put(tmp_path, 0, 2)
    _put(tmp_path, 2, 4)
    _put(tmp_path, 0, 4)
    _put(tmp_path, 4, 5)
    assert _read(tmp_path) == [(number, _event(number)) for number in range(5)]
    assert _read(tmp_path, 3) == [(number, _event(number)) for number in (3, 4)]


def test_what_is_marked_as_lost_is_passed_over_and_what_went_by_its_age_is_not(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    _put(tmp_path, 3, 5)
    _put(tmp_path, 9, 10)
    (folder / "0-3.expired").touch()
    (folder / "5-9.lost").touch()
    assert first_held(tmp_path, LOG, 0) == 3
    assert [offset for offset, _ in _read(tmp_path, 3)] == [3, 4, 9]
    with pytest.raises(LakeDamaged, match=r"offsets 1 to 2 .* removed by their age"):
        _read(tmp_path, 1)


def test_ticks_behind_the_last_file_are_read_once(tmp_path: Path) -> None:
    _put(tmp_path, 0, 2)
    lake_files.write_ticks(_folder(tmp_path), Ticks(2, 6, [(2, 0, 50), (4, 0, 60)]))
    assert coverage(tmp_path, LOG, 0) == 6
    assert _read(tmp_path, 1) == [(1, _event(1)), (2, Tick(time=50)), (4, Tick(time=60))]
    _put(tmp_path, 2, 5)  # the sink has put them into a file
    assert coverage(tmp_path, LOG, 0) == 6
    assert [offset for offset, _ in _read(tmp_path)] == [0, 1, 2, 3, 4]
