"""Whole or not at all."""

from pathlib import Path

import pytest

from feature_store.durable import whole_folder, write_file


def test_a_file_is_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"one")
    write_file(tmp_path / "a", b"two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"two"}


def test_a_folder_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "sets.part").mkdir()
    (tmp_path / "sets.part" / "left by a killed try").touch()
    for name in ("one", "two"):
        with whole_folder(tmp_path / "sets") as draft:
            (draft / name).mkdir()
            (draft / name / "rows").write_text(name)
    with pytest.raises(IsADirectoryError), whole_folder(tmp_path / "sets") as draft:
        draft.write_bytes(b"the disk is full, say")
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["two"]
