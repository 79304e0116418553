"""Imports into a lake: what is in it afterwards, what was refused and why."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import lake_format
from feature_store.contracts import columns
from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from offline_training.data import interactions
from offline_training.data.erasures import CarriedOut
from offline_training.data.importer import ImportReport, import_data
from offline_training.data.lake import read_catalogue
from offline_training.data.sources import Mapping
from offline_training.data.staging import staging_folder
from offline_training.progress import silent
from tests.lakes import put

KEYRING = Keyring(b"a secret for tests, long enough")
IMPORTED = 1_700_000_000_000


def write_csv(path: Path, *rows: tuple[Any, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def run(source: Path, home: Path, *, newlines_in_values: bool = False, **mapping: str) -> ImportReport:
    return import_data(source, Home(home), KEYRING, Mapping(mapping), ManualClock(IMPORTED), silent, newlines_in_values)


def lake_rows(home: Path, dataset: str) -> list[tuple[Any, ...]]:
    files = sorted((home / "lake" / dataset).rglob("*.parquet"))
    schema = {"interactions": columns.INTERACTIONS, "items": columns.ITEMS, "users": columns.USERS}.get(dataset)
    tables = [pq.ParquetFile(file).read() if schema is None else lake_format.read(file, schema) for file in files]
    return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_interactions_enter_under_the_contract_with_user_keys(source: Path, home: Path) -> None:
    write_csv(
        source / "interactions.csv",
        ("user_id", "item_id", "type", "value", "timestamp"),
        ("ann", "ü1", "rating", 4.5, 10),
        ("bob", "2", "click", 1, "1970-01-01T00:00:20Z"),
    )
    report = run(source, home)
    ann, bob = KEYRING.user_key("ann"), KEYRING.user_key("bob")
    assert lake_rows(home, "interactions") == sorted(
        [(ann, "ü1", "rating", 4.5, 10_000, None), (bob, "2", "click", 1.0, 20_000, None)]
    )
    for file in (home / "lake" / "interactions").rglob("*.parquet"):
        assert file.parent.name == "month=1970-01"
        assert pq.read_schema(file).equals(lake_format.stored_schema(columns.INTERACTIONS))
    assert (report.interactions.read, report.interactions.accepted) == (2, 2)
    assert report.items is None
    assert report.users is None
    assert report.interactions.rejects_file is None


@pytest.mark.parametrize(
    ("header", "row", "kind", "value"),
    [
        (("user_id", "item_id", "timestamp"), ("u", "i", 1), "click", 1.0),
        (("user_id", "item_id", "timestamp", "rating"), ("u", "i", 1, 3), "rating", 3.0),
        (("user_id", "item_id", "timestamp", "type"), ("u", "i", 1, "buy"), "buy", 1.0),
        (("user_id", "item_id", "timestamp", "value", "rating"), ("u", "i", 1, 2, 5), "rating", 2.0),
    ],
)
def test_missing_types_and_values_have_defaults(
    source: Path, home: Path, header: tuple[str, ...], row: tuple[Any, ...], kind: str, value: float
) -> None:
    write_csv(source / "ratings.csv", header, row)
    run(source, home)
    assert [entry[2:4] for entry in lake_rows(home, "interactions")] == [(kind, value)]


def test_when_a_row_was_written_is_kept_beside_when_it_happened(source: Path, home: Path) -> None:
    write_csv(
        source / "interactions.csv",
        ("user_id", "item_id", "timestamp", "loaded"),
        ("ann", "1", 10, 30),
        ("ann", "2", 10, "1970-01-01"),  # a date only: known at the later of both
        ("ann", "3", 10, ""),
    )
    report = run(source, home, written="loaded")
    assert [row[1:] for row in lake_rows(home, "interactions")] == [
        ("1", "click", 1.0, 10_000, 30_000),
        ("2", "click", 1.0, 10_000, 0),
    ]
    assert report.interactions.rejected == {"loaded is missing": 1}


def test_columns_are_mapped_in_the_files_that_have_them(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("Kunde", "sku", "wann", "Sterne"), ("Jürgen", "a", 5, 4))
    write_csv(source / "users.csv", ("user_id", "city"), ("Jürgen", "Köln"))
    run(source, home, user_id="Kunde", item_id="sku", timestamp="wann", value="Sterne")
    key = KEYRING.user_key("Jürgen")
    assert lake_rows(home, "interactions") == [(key, "a", "rating", 4.0, 5_000, None)]
    assert lake_rows(home, "users") == [(key, '{"city":"Köln"}', None, IMPORTED)]


def test_integer_and_float_ids_are_the_same_people(source: Path, home: Path) -> None:
    pq.write_table(
        pa.table({"user_id": [7, 8], "item_id": [1.0, 2.0], "timestamp": [1, 2]}), source / "interactions.parquet"
    )
    write_csv(source / "users.csv", ("user_id", "age"), ("7.0", 30), ("8.0", ""))
    run(source, home)
    assert {row[0] for row in lake_rows(home, "interactions")} == {KEYRING.user_key("7"), KEYRING.user_key("8")}
    assert {row[1] for row in lake_rows(home, "interactions")} == {"1", "2"}
    described = {user: attributes for user, attributes, *_ in lake_rows(home, "users")}
    assert described == {KEYRING.user_key("7"): '{"age":30}', KEYRING.user_key("8"): "{}"}


def test_a_profile_is_known_from_when_it_was_written_or_from_its_first_import_on(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("7", "a", 5))
    write_csv(
        source / "users.csv", ("user_id", "age", "written"), ("7", 30, 20), ("8", 40, ""), ("9", 50, "1970-01-02")
    )
    report = run(source, home).users
    assert report is not None
    assert report.rejected == {"written is missing": 1}
    said = [('{"age":30}', 20_000, IMPORTED), ('{"age":50}', 86_400_000, IMPORTED)]
    assert sorted(row[1:] for row in lake_rows(home, "users")) == said
    import_data(source, Home(home), KEYRING, Mapping(), ManualClock(IMPORTED + 1), silent)  # says nothing new
    assert sorted(row[1:] for row in lake_rows(home, "users")) == said


def test_older_data_does_not_bring_an_erased_user_back(source: Path, home: Path) -> None:
    rows = [("ann", "a", 5, 5), ("ann", "b", 5, 30), ("ann", "c", 40, 5), ("ann", "d", 20, 20), ("bob", "a", 5, 5)]
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp", "written"), *rows)
    write_csv(source / "users.csv", ("user_id", "city"), ("ann", "Wellington"), ("bob", "Wellington"))
    ann = KEYRING.user_key("ann")
    put(
        home / "lake" / "erasures" / "erasures.parquet", columns.ERASURES, CarriedOut({}).and_also({ann: 20_000}).rows()
    )
    report = run(source, home)
    assert report.interactions.rejected == {"the user was erased after that": 2}
    assert report.interactions.read == 5 == report.interactions.accepted + 2
    assert [row[1] for row in lake_rows(home, "interactions") if row[0] == ann] == ["b", "c"]
    assert report.users is not None
    assert report.users.rejected == {"the user was erased after that": 1}
    users = [("user_id", "city", "written"), ("ann", "Wellington", 20), ("ann", "Otaki", 21)]
    write_csv(source / "users.csv", *users)
    run(source, home)
    assert [row[1] for row in lake_rows(home, "users") if row[0] == ann] == ['{"city":"Otaki"}']


def test_each_bad_row_is_counted_and_named(source: Path, home: Path) -> None:
    (source / "interactions.csv").write_text(
        "user_id,item_id,timestamp,rating\n"
        "u1,i1,1,5\n"
        ",i1,1,5\n"
        "u1,,1,5\n"
        "too,few\n"
        "u1,i2,soon,5\n"
        "u1,i2,-5,5\n"
        "one,too,1,5,many\n"
        "u1,i3,2,great\n"
        f"u1,{'x' * 257},2,5\n"
        "u1,i1,1,3\n"
    )
    report = run(source, home).interactions
    assert report.rejected == {
        "user_id is empty": 1,
        "item_id is empty": 1,
        "row has another number of columns than the header": 2,
        "timestamp is neither a number nor an ISO 8601 time": 1,
        "timestamp is negative": 1,
        "rating is not a number": 1,
        "item_id has more than 256 characters": 1,
    }
    assert (report.read, report.accepted, report.duplicates) == (10, 1, 1)
    assert report.rejects_file is not None
    rows = pq.read_table(report.rejects_file).to_pylist()
    assert sorted((row["row"], row["reason"].split()[0]) for row in rows) == [
        (2, "user_id"),
        (3, "item_id"),
        (4, "row"),
        (5, "timestamp"),
        (6, "timestamp"),
        (7, "row"),
        (8, "rating"),
        (9, "item_id"),
    ]
    assert {row["file"] for row in rows} == {"interactions.csv"}


def test_the_first_of_duplicates_stays(source: Path, home: Path) -> None:
    header = ("user_id", "item_id", "timestamp", "value")
    write_csv(source / "interactions.csv", header, ("u", "i", 1, 5), ("u", "i", 1, 2), ("u", "i", 2, 1))
    assert run(source, home).interactions.duplicates == 1
    write_csv(source / "interactions.csv", header, ("u", "i", 1, 3), ("u", "i", 3, 3))
    report = run(source, home).interactions
    assert (report.accepted, report.duplicates) == (1, 1)
    assert sorted((row[4], row[3]) for row in lake_rows(home, "interactions")) == [
        (1000, 5.0),
        (2000, 1.0),
        (3000, 3.0),
    ]


def test_a_month_that_does_not_fit_is_searched_for_duplicates_in_parts(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactions, "_ROWS_AT_ONCE", 3)
    month = 31 * 86_400
    rows = [(f"u{n % 10}", "i", n % 20 * month, n) for n in range(60)]  # each three times
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp", "value"), *rows)
    report = run(source, home).interactions
    assert (report.accepted, report.duplicates) == (20, 40)
    assert sorted(row[3] for row in lake_rows(home, "interactions")) == list(range(20))
    months = {path.name for path in (home / "lake" / "interactions").iterdir()}
    assert len(months) == 20
    assert {"month=1970-01", "month=1971-08"} <= months
    more = [("new", "i", 0, 1), *rows[::-1], ("new", "i", 0, 2)]
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp", "value"), *more)
    report = run(source, home).interactions
    assert (report.accepted, report.duplicates) == (1, 61)
    assert len(lake_rows(home, "interactions")) == 21


CELLS = st.sampled_from(["a", "b", "c", "", "ü", "3.0", "3"])
ROWS = st.lists(st.tuples(CELLS, CELLS, st.sampled_from(["1", "2", "-1", "x", "1970-01-01"]), CELLS), min_size=1)


@settings(deadline=None, max_examples=40)
@given(rows=ROWS)
def test_importing_twice_is_importing_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("twice")
    write_csv(folder / "interactions.csv", ("user_id", "item_id", "timestamp", "type"), *rows)
    write_csv(folder / "items.csv", ("item_id", "title", "size"), *(row[1:] for row in rows))
    once = run(folder, folder / "home")
    before = [lake_rows(folder / "home", dataset) for dataset in ("interactions", "items", "rejects")]
    twice = run(folder, folder / "home")
    assert [lake_rows(folder / "home", dataset) for dataset in ("interactions", "items", "rejects")] == before
    for first, second in ((once.interactions, twice.interactions), (once.items, twice.items)):
        assert first is not None
        assert second is not None
        assert second.accepted == 0
        assert second.rejected == first.rejected
        for report in (first, second):
            assert report.read == report.accepted + report.duplicates + sum(report.rejected.values()) == len(rows)


def test_items_carry_categories_and_scalar_columns(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    pq.write_table(
        pa.table(
            {
                "item_id": [1, 2],
                "title": ["Amélie", None],
                "genres": [["Comedy", " Romance ", "Comedy", ""], None],
                "year": pa.array([2001, None], pa.int32()),
                "score": [1.5, float("nan")],
                "new": [True, False],
                "embedding": [[1.0], [2.0]],
            }
        ),
        source / "items.parquet",
    )
    report = run(source, home).items
    assert report is not None
    assert report.ignored_columns == ("embedding",)
    first, second = lake_rows(home, "items")
    assert first[:3] == ("1", "Amélie", ["Comedy", "Romance"])
    assert json.loads(first[3]) == {"year": 2001, "score": 1.5, "new": True}
    assert second == ("2", "", [], '{"new":false}', None, None)
    assert pq.read_schema(home / "lake" / "items" / "items.parquet").equals(lake_format.stored_schema(columns.ITEMS))


def test_items_say_from_when_until_when_they_may_be_shown(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    rows = [("a", "2026-01-01", "1800000000"), ("b", "", ""), ("c", "soon", "")]
    write_csv(source / "items.csv", ("item_id", "available_from", "available_until"), *rows)
    report = run(source, home).items
    assert report is not None
    assert report.rejected == {"available_from is neither a number nor an ISO 8601 time": 1}
    assert [row[3:] for row in lake_rows(home, "items")] == [
        ("{}", 1_767_225_600_000, 1_800_000_000_000),
        ("{}", None, None),
    ]
    assert read_catalogue(home / "lake")["a"] == Item(
        id="a", available_from=1_767_225_600_000, available_until=1_800_000_000_000
    )


def test_the_newest_description_of_an_item_counts(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    write_csv(source / "items.csv", ("item_id", "title", "categories"), ("a", "old", "x|y"), ("b", "same", ""))
    run(source, home)
    write_csv(source / "items.csv", ("item_id", "title", "categories"), ("a", "new", "x | z"), ("b", "same", ""))
    report = run(source, home).items
    assert report is not None
    assert (report.accepted, report.duplicates) == (1, 1)
    assert [row[:3] for row in lake_rows(home, "items")] == [("a", "new", ["x", "z"]), ("b", "same", [])]


def test_part_files_and_a_single_file_are_sources_too(source: Path, home: Path) -> None:
    parts = source / "interactions"
    parts.mkdir()
    write_csv(parts / "part-0.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    pq.write_table(pa.table({"user_id": ["v"], "item_id": ["i"], "timestamp": [1]}), parts / "part-1.parquet")
    (parts / "_SUCCESS").touch()
    assert run(source, home).interactions.accepted == 2
    assert run(parts / "part-0.csv", home).interactions.duplicates == 1


def test_text_with_line_breaks_and_a_byte_order_mark_is_read(source: Path, home: Path) -> None:
    (source / "interactions.csv").write_text(
        '\ufeffuser_id,item_id,timestamp\n"u\n1",i,1\nbad\nv,i,x\n', encoding="utf-8"
    )
    report = run(source, home, newlines_in_values=True).interactions
    assert report.accepted == 1
    assert report.rejects_file is not None
    assert sorted(row["row"] for row in pq.read_table(report.rejects_file).to_pylist()) == [2, 3]


HEADER = ("user_id", "item_id", "timestamp", "value")
STRAY = {
    "before an id": lambda row: row.replace(b",", b',"', 1),
    "at the end of an id": lambda row: row.replace(b",", b'",', 1),
    "at the beginning of the row": lambda row: b'"' + row,
    "at the end of the row": lambda row: row.rstrip() + b'"\n',
}


@pytest.mark.parametrize("where", STRAY)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_stray_quote_spoils_its_own_row_and_no_other(source: Path, home: Path, where: str, quoting: Any) -> None:
    text = io.StringIO(newline="")
    rows = [(f"u{n}", f"i{n % 300}", n, 5) for n in range(10_000)]
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows([HEADER, *rows])
    lines = text.getvalue().encode().splitlines(keepends=True)
    lines[100] = STRAY[where](lines[100])
    (source / "interactions.csv").write_bytes(b"".join(lines))
    report = run(source, home).interactions
    assert report.read == report.accepted + report.duplicates + sum(report.rejected.values()) == 10_000
    assert report.accepted >= 9_999
    if report.rejected:
        assert report.rejects_file is not None
        assert [row["row"] for row in pq.read_table(report.rejects_file).to_pylist()] == [100]


def test_an_open_quote_is_named_by_its_line_where_values_may_hold_line_breaks(source: Path, home: Path) -> None:
    (source / "interactions.csv").write_text('user_id,item_id,timestamp\n\n"u\n1",i,1\nv,"i,1\nw,i,1\n')
    with pytest.raises(InvalidInput, match=r"a quote that is opened on line 5 is not closed before the file ends"):
        run(source, home, newlines_in_values=True)
    report = run(source, home).interactions
    assert (report.read, sum(report.rejected.values())) == (4, 2)
    assert any("--newlines-in-values" in reason for reason in report.rejected)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_is_done_to_a_file_its_rows_add_up_or_it_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    rows = [b"user_id,item_id,timestamp,value", *(b"u%d,i%d,%d,5" % (n, n % 7, n) for n in range(30))]
    if data.draw(st.booleans()):
        rows = [b",".join(b'"%b"' % cell for cell in row.split(b",")) for row in rows]
    mangled = end.join(rows) + end
    noise = st.one_of(st.sampled_from([b'"', b'""', b"\n", b"\r", b",", b"\0", b'",', b',"']), st.binary(max_size=3))
    for at, bytes_ in data.draw(st.lists(st.tuples(st.integers(0, len(mangled)), noise), max_size=6)):
        keep = at + data.draw(st.integers(0, 2))
        mangled = mangled[:at] + bytes_ + mangled[keep:]
    folder = tmp_path_factory.mktemp("mangled")
    (folder / "interactions.csv").write_bytes(mangled)
    newlines = data.draw(st.booleans())
    try:
        report = run(folder, folder / "home", newlines_in_values=newlines).interactions
    except InvalidInput:
        return
    assert report.read == report.accepted + report.duplicates + sum(report.rejected.values())
    assert report.accepted == len(lake_rows(folder / "home", "interactions"))
    if not newlines:
        assert report.read == len([line for line in mangled.splitlines() if line]) - 1


def test_user_ids_enter_no_file(source: Path, home: Path) -> None:
    write_csv(
        source / "interactions.csv",
        ("user_id", "item_id", "timestamp"),
        ("secret-person", "i", 1),
        ("secret-person", "i", "never"),
    )
    write_csv(source / "users.csv", ("user_id", "age"), ("secret-person", 3), ("secret-person,", 3))
    run(source, home)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in files if b"secret-person" in path.read_bytes()]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, r"has no interactions: expected interactions.parquet.*It holds nothing"),
        ({"clicks.csv": "a,b\n"}, r"It holds clicks.csv\. Rename"),
        ({"interactions.csv": ""}, r"interactions.csv is empty"),
        ({"interactions.csv": "user_id,item_id,timestamp\n"}, r"interactions.csv holds no rows"),
        (
            {"interactions.csv": "user,item_id,timestamp\nu,i,1\n"},
            r"no column 'user_id'; it has 'user', 'item_id', 'timestamp'.*--map user_id=NAME",
        ),
        ({"interactions.csv": "user_id;item_id;timestamp\nu;i;1\n"}, r"Are its columns separated by commas\?"),
        ({"interactions.csv": "user_id,item_id,timestamp,item_id\nu,i,1,j\n"}, r"two columns named 'item_id'"),
        ({"interactions.parquet": "not parquet"}, r"interactions.parquet cannot be read as parquet .*Export it again"),
        ({"interactions.csv": b"user_id,item_id,timestamp\n\xe9,i,1\n"}, r"is not UTF-8 text \(byte 0xe9 on line 2\)"),
        ({"interactions.csv": "user_id,item_id,timestamp\nu,i,1\n".encode("utf-16")}, r"is UTF-16 text\. Save it as"),
        ({"interactions.csv": "user_id,item_id,timestamp\nu,i,1\n".encode("utf-16-le")}, r"is it UTF-16 text\?"),
        (
            {"interactions.csv": gzip.compress(b"user_id,item_id,timestamp\nu,i,1\n")},
            r"compressed with gzip",
        ),
        ({"interactions.csv": b"PAR1" + bytes(range(256)) * 9 + b"PAR1"}, r"is a Parquet file\. Name it \.parquet"),
        ({"interactions.csv": b"PK\x03\x04\xff"}, r"is a zip archive or an Excel workbook"),
        ({"interactions.csv": 'user_id,"item_id,timestamp\nu,i,1\n'}, r"a quote in the header, line 1, is not closed"),
        ({"interactions.csv": "a\n", "ratings.csv": "a\n"}, r"interactions.csv and ratings.csv, which are the same"),
        (
            {"interactions.csv": "user_id,item_id,timestamp\nu,i,1\n", "items.csv": "id,title\n1,x\n"},
            r"items.csv has no column 'item_id'; it has 'id', 'title'",
        ),
        (
            {"interactions.csv": "user_id,item_id,timestamp\nu,i,1\n", "items.csv": "item_id,title\n"},
            r"items.csv holds no rows",
        ),
    ],
)
def test_bad_sources_are_explained(source: Path, home: Path, files: dict[str, str | bytes], complaint: str) -> None:
    for name, content in files.items():
        (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match=complaint):
        run(source, home)
    assert not list(home.rglob("*.parquet")) or "items.csv" in files


def test_a_column_of_an_unusable_type_is_explained_with_its_file(source: Path, home: Path) -> None:
    pq.write_table(pa.table({"user_id": [["u"]], "item_id": ["i"], "timestamp": [1]}), source / "interactions.parquet")
    with pytest.raises(InvalidInput, match=r"interactions.parquet: Column user_id holds list<.*ids must be text"):
        run(source, home)


def test_a_missing_directory_and_a_mapping_to_nowhere_are_explained(source: Path, home: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        run(source / "nowhere", home)
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    with pytest.raises(InvalidInput, match=r"No file has the column 'klant' that user_id is mapped to\. Found: inter"):
        run(source, home, user_id="klant")
    with pytest.raises(InvalidInput, match=r"'item_id' would be read as user_id and as item_id\. Map them to two"):
        run(source, home, user_id="item_id")


def test_what_is_no_file_is_explained(source: Path, home: Path) -> None:
    with pytest.raises(InvalidInput, match=r"/dev/null is neither a directory nor a \.parquet or \.csv file"):
        run(Path("/dev/null"), home)
    (source / "interactions.csv").symlink_to("/dev/zero")
    with pytest.raises(InvalidInput, match=r"interactions.csv is not a file"):
        run(source, home)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["user_id"], "is not a column mapping. Write OURS=YOURS"),
        (["=x"], "is not a column mapping"),
        (["name=x"], "'name' is not a column that can be mapped. Map one of: user_id"),
        (["user_id=a", "user_id=b"], "'user_id' is mapped twice, to 'a' and 'b'"),
        (["user_id=a", "item_id=a"], "Column 'a' would be read as user_id and as item_id"),
    ],
)
def test_bad_mappings_are_explained(options: list[str], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        Mapping.parse(options)


def test_mappings_are_read_from_options() -> None:
    assert Mapping.parse(["user_id=who = x", "value = stars"]).columns == {"user_id": "who = x", "value": "stars"}


def test_what_a_killed_import_left_is_replaced_and_only_one_runs_at_a_time(source: Path, home: Path) -> None:
    write_csv(source / "interactions.csv", ("user_id", "item_id", "timestamp"), ("u", "i", 1))
    left = home / "lake" / ".import" / "3.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert run(source, home).interactions.accepted == 1
    assert not left.parent.exists()
    with staging_folder(Home(home)), pytest.raises(Unavailable, match="Another import is writing"):
        run(source, home)
