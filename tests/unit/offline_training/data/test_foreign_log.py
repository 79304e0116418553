"""Logs of other systems: what is read of them, and what is refused, row by row."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput
from feature_store.home import Home
from offline_training.data.foreign_log import COLUMNS, import_log, log_file
from offline_training.data.sources import Mapping
from offline_training.data.staging import DatasetReport
from offline_training.progress import silent
from tests.events import KEYRING

NOW = 1_700_000_000_000
GOOD = {"action": "a", "reward": 1.0, "propensity": 0.5}


def imported(
    folder: Path, rows: list[dict[str, Any]], *options: str, rewards: tuple[float, float] | None = None
) -> Any:
    """What became of the rows, and the table that was written."""
    source = folder / "theirs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    found = run(folder, source, *options, rewards=rewards)
    return found, pq.read_table(log_file(folder / "home" / "lake", "theirs"))


def run(folder: Path, source: Path, *options: str, rewards: tuple[float, float] | None = None) -> DatasetReport:
    mapping = Mapping.parse(options, COLUMNS)
    return import_log(source, Home(folder / "home"), "theirs", KEYRING, mapping, rewards, ManualClock(NOW), silent)


def test_columns_by_their_own_names(tmp_path: Path) -> None:
    row = {
        "visitor": 7, "when": NOW // 1000, "arm": 3, "got": True, "p": 0.25, "slot": 2,
        "offered": ["1", "2", "3"], "other": 0.75, "age": 30, "country": "de",
    }  # fmt: skip
    options = (
        *("user=visitor", "timestamp=when", "action=arm", "reward=got", "propensity=p", "position=slot"),
        *("candidates=offered", "target=other", "context=age, country"),
    )
    found, table = imported(tmp_path, [row], *options)
    assert (found.read, found.accepted, found.rejected) == (1, 1, {})
    [written] = table.to_pylist()
    context = written.pop("context")
    assert written.pop("decision") is None
    assert written == {
        "user": KEYRING.user_key("7"), "time": datetime.fromtimestamp(NOW / 1000, UTC), "action": "3", "reward": 1.0,
        "propensity": 0.25, "position": 2, "choices": 3, "target": 0.75, "category": None,
    }  # fmt: skip
    assert context[0] == 30
    assert sorted(context[1:]) == [0.0] * 15 + [1.0]


def test_three_columns_are_enough(tmp_path: Path) -> None:
    _, table = imported(tmp_path, [{"item_id": 80, "click": 0, "propensity": 0.0125}])
    [written] = table.to_pylist()
    assert (written["action"], written["reward"], written["position"]) == ("80", 0.0, 1)
    assert written["user"] is written["choices"] is written["target"] is None
    assert written["context"] == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"propensity": None}, "propensity is missing"),
        ({"propensity": 0.0}, "propensity is not above 0: whatever was shown had a chance"),
        ({"propensity": -0.5}, "propensity is not above 0: whatever was shown had a chance"),
        ({"propensity": 1.5}, "propensity is above 1"),
        ({"propensity": math.nan}, "propensity is missing"),
        ({"reward": None}, "reward is missing"),
        ({"reward": math.nan}, "reward is missing"),
        ({"reward": math.inf}, "reward is not finite"),
        ({"reward": 3.0}, "reward is outside 0..1"),
        ({"reward": -0.1}, "reward is outside 0..1"),
        ({"action": ""}, "action is empty"),
        ({"position": 0}, "position is no position"),
        ({"position": 1.5}, "position is no position"),
        ({"timestamp": NOW + 300_001}, "timestamp is more than 5 minutes ahead of now"),
        ({"timestamp": -1}, "timestamp is negative"),
        ({"target": 1.01}, "target is outside 0..1"),
        ({"candidates": 0}, "candidates names no action"),
        ({"user": ""}, "user is empty"),
    ],
)
def test_a_row_that_breaks_a_rule_is_counted_with_the_reason(
    tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    good = GOOD | {"position": 1.0, "timestamp": NOW, "target": 0.5, "candidates": 2, "user": "ada"}
    found, table = imported(tmp_path, [good, good | wrong], rewards=(0, 1))
    assert found.rejected == {reason: 1}
    assert len(table) == found.accepted == 1
    assert found.rejects_file is not None
    assert pq.read_table(found.rejects_file)["row"].to_pylist() == [2]


def test_a_decision_that_comes_twice_counts_once_at_each_position(tmp_path: Path) -> None:
    rows = [
        GOOD | {"decision": name, "position": position, "reward": float(number)}
        for number, (name, position) in enumerate([("x", 1), ("x", 2), ("y", 1), ("x", 1), ("x", 2)])
    ]
    found, table = imported(tmp_path, rows)
    assert (found.read, found.accepted, found.duplicates) == (5, 3, 2)
    assert table["reward"].to_pylist() == [0.0, 1.0, 2.0]


def test_letters_sent_at_random_have_one_propensity(tmp_path: Path) -> None:
    """As Hillstrom's mail test has it: a segment, what came of it, and no word of chances."""
    rows = [{"segment": name, "visit": visit, "kind": "mail"} for name, visit in (("men", 1), ("women", 0))]
    source = tmp_path / "theirs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    mapping = Mapping.parse(("action=segment", "reward=visit", "category=kind"), COLUMNS)
    import_log(source, Home(tmp_path), "theirs", KEYRING, mapping, None, ManualClock(NOW), silent, propensity=1 / 3)
    table = pq.read_table(log_file(tmp_path / "lake", "theirs"))
    assert table["propensity"].to_pylist() == [1 / 3, 1 / 3]
    assert table["category"].to_pylist() == ["mail", "mail"]
    mapping = Mapping.parse(("action=segment", "reward=visit", "propensity=kind"), COLUMNS)
    with pytest.raises(InvalidInput, match="has propensities in 'kind': leave out --propensity, or the column"):
        import_log(source, Home(tmp_path), "theirs", KEYRING, mapping, None, ManualClock(NOW), silent, propensity=1 / 3)


def test_csv_in_parts(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, reward in (("a", 1), ("b", "much")):
        (parts / f"{name}.csv").write_text(f"action,reward,propensity\nmail,{reward},0.5\nnone,0,0.5\n")
    found = run(tmp_path, parts)
    assert (found.read, found.accepted, found.rejected) == (4, 3, {"reward is not a number": 1})


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([{"action": "a", "reward": 1.0}], (), "has no column 'propensity'"),
        ([GOOD | {"propensity": 0.0}], (), "No row of .* can be used .1: propensity is not above 0"),
        ([GOOD], ("context=age",), "has no column 'age', which the context is to hold"),
        ([GOOD], ("item=action",), "'item' is not a column that can be mapped. Map one of: decision, user"),
        ([GOOD | {"reward": ["x"]}], (), "Column reward holds list"),
    ],
)
def test_a_log_that_is_none_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        imported(tmp_path, rows, *options)
    with pytest.raises(InvalidInput, match="There is no log 'theirs'"):
        log_file(tmp_path / "home" / "lake", "theirs")
