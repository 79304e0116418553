from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.columns import INTERACTIONS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from offline_training.data.sources import Mapping
from offline_training.data.user_ids import user_ids
from offline_training.simulation.world import Visitor, World, arrival_fractions, withheld_items

IDS = {"A": "ann", "B": "bob", "E": "eve"}


def write_lake(lake: Path, rows: list[tuple[str, str, str, float, int]]) -> None:
    (lake / "interactions").mkdir(parents=True, exist_ok=True)
    columns = [*zip(*rows, strict=True), [None] * len(rows)]
    pq.write_table(pa.table([pa.array(c) for c in columns], schema=INTERACTIONS), lake / "interactions" / "a-0.parquet")


def test_tastes_are_positive_interactions_after_the_split(tmp_path: Path) -> None:
    write_lake(
        tmp_path,
        [
            ("A", "1", "rating", 5.0, 99),  # before the split
            ("A", "2", "rating", 4.0, 100),
            ("A", "3", "rating", 3.9, 101),  # below the positive value
            ("B", "2", "click", 1.0, 100),
            ("B", "ü", "click", 0.0, 250),
            ("E", "1", "rating", 2.0, 300),
            ("?", "1", "rating", 5.0, 300),  # nobody knows the id
        ],
    )
    world = World.from_lake(tmp_path, IDS, 100, {"rating": 4.0})
    assert world.likes == {"ann": {"2"}, "bob": {"2"}}
    assert [[visitor.user for visitor in twins] for twins in world.visitors()] == [["ann"], ["bob"]]


def test_the_newest_rating_of_an_item_counts(tmp_path: Path) -> None:
    write_lake(tmp_path, [("A", "1", "rating", 2.0, 500), ("A", "1", "rating", 5.0, 400), ("A", "2", "rating", 5.0, 1)])
    assert World.from_lake(tmp_path, IDS, 0, {"rating": 4.0}).likes == {"ann": {"2"}}


def test_a_world_without_tastes_is_refused(tmp_path: Path) -> None:
    write_lake(tmp_path, [("A", "1", "rating", 2.0, 500)])
    with pytest.raises(InvalidInput, match="no tastes to simulate"):
        World.from_lake(tmp_path, IDS, 0, {"rating": 4.0})


def test_ids_are_spelled_as_the_import_spells_them(tmp_path: Path) -> None:
    keyring = Keyring(b"a secret of sixteen bytes")
    table = pa.table({"customer": [7.0, None, 8.0, 7.0], "item_id": ["x"] * 4, "timestamp": [1, 2, 3, 4]})
    csv.write_csv(table, tmp_path / "interactions.csv")
    found = user_ids(tmp_path, Mapping({"user_id": "customer"}), keyring)
    assert found == {keyring.user_key("7"): "7", keyring.user_key("8"): "8"}


def test_a_visitor_is_rewarded_once_and_then_done() -> None:
    visitor = Visitor("ann", {"a", "b"})
    assert visitor.see(["x", "a"]) == [0.0, 1.0]
    assert not visitor.done
    assert visitor.see(["a", "b"]) == [0.0, 1.0]
    assert visitor.done


def test_visitors_do_not_share_their_tastes_with_the_world_nor_with_their_twins() -> None:
    world = World({"ann": frozenset({"a"})}).with_twins({"ann": ["ann~1", "ann~2"]})
    [[one, other]] = world.visitors()
    assert (one.user, other.user) == ("ann~1", "ann~2")
    one.see(["a"])
    assert other.left == {"a"}
    assert world.visitors()[0][0].left == {"a"}


@given(st.sets(st.text(min_size=1), max_size=60), st.floats(0, 1), st.integers(0, 5))
def test_withheld_sample(items: set[str], share: float, seed: int) -> None:
    chosen = withheld_items(items, share, seed)
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= items
    assert abs(len(chosen) - share * len(items)) <= 0.5
    assert chosen == withheld_items(sorted(items, reverse=True), share, seed)


def test_withheld_share_is_checked() -> None:
    with pytest.raises(InvalidInput, match=r"1\.5"):
        withheld_items(["a"], 1.5, 0)


def test_arrivals_are_even() -> None:
    assert arrival_fractions(3, 0.6) == pytest.approx([0.2, 0.4, 0.6])
    assert arrival_fractions(0, 0.6) == []
