"""A frozen lake: what was there, and nothing of what comes."""

import os
from pathlib import Path

import pytest

from offline_training.runs.watermark import Frozen, freeze

FILES = {"interactions/month=1/a.parquet": b"a", "events/log=x/partition=0/0-7.parquet": b"bcd"}


def lake(path: Path) -> Path:
    others = {"events/log=x/partition=0/.7-9.12": b"draft", ".import/b.parquet": b"not yet", "interactions/note": b""}
    for name, content in (FILES | others).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def found(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("links", [True, False])
def test_it_holds_the_files_that_count(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:  # as on some network file systems

        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
    source = lake(tmp_path / "lake")
    frozen = freeze(source, tmp_path / "frozen")
    assert found(tmp_path / "frozen") == FILES
    assert (frozen.files, frozen.size) == (2, 4)
    (source / "interactions" / "new").write_bytes(b"rewritten")
    (source / "interactions" / "new").replace(source / "interactions/month=1/a.parquet")
    assert found(tmp_path / "frozen") == FILES


def test_the_digest_is_of_what_is_there(tmp_path: Path) -> None:
    source = lake(tmp_path / "lake")
    first = freeze(source, tmp_path / "one")
    assert freeze(source, tmp_path / "one") == first
    (source / "interactions/month=1/c.parquet").write_bytes(b"")
    assert freeze(source, tmp_path / "one").digest != first.digest


def test_a_home_without_a_lake_is_empty(tmp_path: Path) -> None:
    assert freeze(tmp_path / "nowhere", tmp_path / "frozen") == Frozen(0, 0, "e3b0c44298fc1c14")
