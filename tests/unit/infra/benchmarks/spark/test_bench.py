"""The lakes of the Spark bench: as large as asked for, as skewed as real logs, and under the lake's contract."""

from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from feature_store.contracts import columns
from feature_store.contracts.errors import InvalidInput
from feature_store.lake_format import read, stored_schema
from infra.benchmarks.spark.bench import rows, run
from infra.benchmarks.spark.generator import write_lake
from offline_training.progress import silent


def test_a_lake_is_as_large_and_as_skewed_as_it_should_be(tmp_path: Path) -> None:
    write_lake(tmp_path, 50_000, 7, silent)
    contracts = {"interactions": columns.INTERACTIONS, "items": columns.ITEMS, "users": columns.USERS}
    contracts["events"] = columns.EVENTS
    files = {name: [*(tmp_path / name).rglob("*.parquet")] for name in contracts}
    assert all(pq.read_schema(file) == stored_schema(contracts[name]) for name in contracts for file in files[name])
    made = {name: read(file, contracts[name]) for name, [file] in files.items()}
    assert made["interactions"].num_rows == 50_000
    assert made["events"]["kind"].value_counts().to_pylist() == [
        {"values": "decision", "counts": 500},
        {"values": "feedback", "counts": 1_000},
    ]
    of_users, of_items = (
        np.sort(made["interactions"][name].value_counts().field("counts").to_numpy())[::-1] for name in ("user", "item")
    )
    assert of_users[0] == pytest.approx(5_000, rel=0.05)  # the bot: a tenth
    # Popularity 1 / (r + 10): the hundred most popular of 4,472 have the share of ln(110 / 10) of ln(4482 / 10).
    assert of_items[:100].sum() / 50_000 == pytest.approx(np.log(11) / np.log(448.2), rel=0.05)
    by_hour = np.bincount(made["interactions"]["time"].to_numpy() // 3_600_000 - 1_700_000_000_000 // 3_600_000)
    assert by_hour.max() > 10 * by_hour.mean()


def test_the_same_seed_makes_the_same_lake(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_lake(tmp_path / name, 2_000, seed, silent)
    a, b, c = (ds.dataset(tmp_path / name / "interactions").to_table() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("sizes", ["", "many", "1000,", "1000,999", "1e6"])
def test_sizes_that_are_none_are_explained(sizes: str) -> None:
    with pytest.raises(InvalidInput, match="give whole numbers of at least 1000, with commas between"):
        run(0, silent, sizes=sizes)


def test_the_sizes_are_a_table_for_people() -> None:
    size = {
        "rows": 1_000_000,
        "seconds": 20.0,
        "rows_per_second": 50_000.0,
        "microseconds_per_row": 20.0,
        "processor_microseconds_per_row": 35.0,
        "peak_jvm_gb": 2.5,
        "longest_task_seconds": 1.5,
        "spilled_disk_gb": 0.0,
    }
    assert rows({"sizes": [size]})[1] == ["1,000,000", "20.0", "50,000", "20.0", "35.0", "2.50", "1.5", "0.00"]
