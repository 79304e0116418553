"""What the lake asks of where it is: the same of a folder of the file system and of an object store."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import lake_format
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput, LakeDamaged, Unavailable
from feature_store.home import Home
from feature_store.lake_claim import claim
from feature_store.lake_path import LakePath, fetch, make_folder, new_file, replace, replace_content, set_aside, size
from feature_store.object_store import ObjectStore
from feature_store.rewriting import reading, rewriting
from streaming import lake_files
from tests.object_stores import new_store, running_store

ROWS = [{"offset": n, "position": 0, "kind": "tick", "time": n} for n in range(100)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_store() as address:
        yield address


@pytest.fixture(params=["folder", "object store"])
def home(request: pytest.FixtureRequest, endpoint: str, tmp_path: Path) -> Home:
    return Home(tmp_path, None if request.param == "folder" else new_store(endpoint))


@pytest.fixture
def stored(endpoint: str, tmp_path: Path) -> Home:
    return Home(tmp_path, new_store(endpoint))


def put(path: LakePath, content: bytes) -> None:
    with new_file(path) as draft:
        draft.write_bytes(content)


def names(paths: object) -> list[str]:
    assert isinstance(paths, Iterator)
    return sorted(path.name for path in paths)


def test_a_new_file_is_there_when_it_is_whole(home: Home) -> None:
    folder = home.lake / "events" / "log=x" / "partition=0"
    make_folder(folder)
    with contextlib.suppress(KeyError), new_file(folder / "0-7.parquet") as draft:
        draft.write_bytes(b"half")
        raise KeyError
    assert names(folder.glob("*")) == []
    put(folder / "0-7.parquet", b"whole")
    assert names(folder.glob("*")) == ["0-7.parquet"]
    assert (folder / "0-7.parquet").read_bytes() == b"whole"
    assert size(folder / "0-7.parquet") == 5


def test_files_are_found_by_their_names(home: Home) -> None:
    for name in ("events/log=a/partition=0/0-1.parquet", "events/log=a/partition=1/0-1.lost", "items/items.parquet"):
        put(home.lake / name, b"x")
    assert names(home.lake.glob("[!.]*")) == ["events", "items"]
    assert names((home.lake / "events").glob("log=*/partition=*")) == ["partition=0", "partition=1"]
    assert names(home.lake.rglob("*.parquet")) == ["0-1.parquet", "items.parquet"]
    assert names((home.lake / "nowhere").glob("*")) == []
    found = [(log, partition) for log, partition, _ in lake_files.partition_folders(home.lake, "events")]
    assert found == [("a", 0), ("a", 1)]
    assert [path.is_dir() for path in (home.lake / "items", home.lake / "item", home.lake / "items" / "x")] == [
        True,
        False,
        False,
    ]


def test_a_file_is_replaced_fetched_set_aside_and_removed(home: Home, tmp_path: Path) -> None:
    path, draft = home.lake / "items" / "items.parquet", tmp_path / "draft"
    for content in (b"one", b"another"):
        draft.write_bytes(content)
        replace(draft, path)
        assert path.read_bytes() == content
    replace_content(path, b"third")
    fetch(path, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"third"
    set_aside(path, ".torn")
    assert (path.exists(), path.with_suffix(".torn").read_bytes()) == (False, b"third")
    path.with_suffix(".torn").unlink()
    path.with_suffix(".torn").unlink(missing_ok=True)
    assert not path.with_suffix(".torn").exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    with pytest.raises(FileNotFoundError):
        size(path)


def test_rows_come_back_as_they_were_written(home: Home) -> None:
    folder = home.lake / "events" / "log=x" / "partition=0"
    table = pa.Table.from_pylist(ROWS, EVENTS)
    lake_files.write(folder, 0, 100, table)
    [path] = [stretch.path for stretch in lake_files.files(folder)]
    assert lake_format.rows_in(path) == 100
    assert lake_files.read(path, EVENTS).equals(table)
    assert lake_files.read(path, EVENTS, ["offset"], pc.field("offset") >= 98)["offset"].to_pylist() == [98, 99]
    assert lake_files.read(path, EVENTS, ["offset"], since=100).num_rows == 0
    assert [row["offset"] for row in lake_files.rows(path, EVENTS, 97)] == [97, 98, 99]
    assert not lake_files.is_torn(path)
    lake_files.mark_lost(folder, 100, 107)
    assert lake_files.covered(folder) == 107


def test_a_file_of_any_size_is_read_part_by_part(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.object_store._SMALL", 100)
    table = pa.Table.from_pylist(ROWS, EVENTS)
    lake_files.write(home.lake / "p", 0, 100, table)
    assert lake_files.read(home.lake / "p" / "0-100.parquet", EVENTS).equals(table)


def test_a_torn_file_is_damage(home: Home) -> None:
    folder = home.lake / "p"
    lake_files.write(folder, 0, 100, pa.Table.from_pylist(ROWS, EVENTS))
    path = folder / "0-100.parquet"
    replace_content(path, path.read_bytes()[:100])
    assert lake_files.is_torn(path)
    with pytest.raises(LakeDamaged, match="cannot be read"):
        lake_files.read(path, EVENTS)


def test_a_rewriting_counts_as_a_whole(home: Home) -> None:
    for name in ("a", "b", "c"):
        put(home.lake / name, b"old")
    with rewriting(home) as rewrite:
        rewrite.draft(home.lake / "a").write_bytes(b"new")
    assert (home.lake / "a").read_bytes() == b"old"  # it was not published
    with rewriting(home) as rewrite:
        rewrite.draft(home.lake / "a").write_bytes(b"new")
        rewrite.draft_of_many(home.lake / "b-c", [home.lake / "b", home.lake / "c"]).write_bytes(b"both")
        rewrite.publish()
    with reading(home):
        assert names(home.lake.glob("[abc]*")) == ["a", "b-c"]
        assert [(home.lake / name).read_bytes() for name in ("a", "b-c")] == [b"new", b"both"]


def test_of_two_who_create_an_object_the_first_wins(stored: Home) -> None:
    assert stored.store is not None
    path = stored.store.root / "0-7.parquet"
    assert (path.create(b"first"), path.create(b"second"), path.read_bytes()) == (True, False, b"first")


def test_what_was_replaced_meanwhile_is_not_read_as_one(stored: Home) -> None:
    assert stored.store is not None
    path = stored.store.root / "x"
    path.put(b"before")
    with path.open() as file:
        path.put(b"behind")
        with pytest.raises(Unavailable, match="refuses s3:GetObject"):
            file.read()


def test_a_lake_belongs_to_one_home(stored: Home, tmp_path: Path) -> None:
    claim(stored)
    claim(stored)
    claim(Home(tmp_path / "with a lake of its own"))
    with pytest.raises(InvalidInput, match="belongs to another home directory than"):
        claim(Home(tmp_path / "another", stored.store))
    with pytest.raises(InvalidInput, match="belongs to another home"), rewriting(Home(tmp_path / "b", stored.store)):
        pass


@pytest.mark.parametrize("url", ["s3://", "lake", "s3://UPPER/x", "s3://bucket/a//b", "https://bucket/x", "s3://b/x?y"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="It must be s3://BUCKET/FOLDER"):
        ObjectStore(url)


def test_what_cannot_be_reached_says_so(endpoint: str) -> None:
    with pytest.raises(Unavailable, match=f"There is no bucket nobody at {endpoint}. Make it, or correct lake.url"):
        list(ObjectStore("s3://nobody/x", endpoint).root.glob("*"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        path = ObjectStore("s3://nobody/x", away).root / "0-7.parquet"
        with pytest.raises(Unavailable, match=f"does not answer at {away}"):
            lake_files.is_torn(path)  # which it is not for that


def test_without_credentials_it_says_where_they_are_looked_for(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Unavailable, match=r"There are no credentials for s3://nobody/x\. Set AWS_ACCESS_KEY_ID and"):
        (ObjectStore("s3://nobody/x", endpoint).root / "x").read_bytes()
