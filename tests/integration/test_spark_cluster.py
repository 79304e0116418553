"""The training-set job on executors that are processes of their own, which share nothing with the driver but files."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyspark.sql import SparkSession

from infra.benchmarks.spark.generator import write_lake
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from streaming.settings import RewardSettings

PROGRAM = """
import sys
from pathlib import Path
from offline_training.data.spark import spark_session, stop_session
from offline_training.settings import SparkSettings
from tests.integration.test_spark_cluster import build

quick = {"spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
spark = spark_session(
    SparkSettings(master="local-cluster[2,1,2048]", driver_memory="512m", shuffle_partitions=2, properties=quick),
    "test",
)
build(spark, Path(sys.argv[1]), Path(sys.argv[2]))
stop_session(spark)
"""
SETS = {"items": "item", "items_at_validation": "item", "users": "user", "impressions": "decision"}
LISTS = ("item_lists", "item_lists_at_validation")


def build(spark: SparkSession, lake: Path, out: Path) -> None:
    build_training_sets(
        spark,
        lake,
        out,
        training=TrainingSettings(),
        rewards=RewardSettings(),
        until_ms=None,
        exclude_items=frozenset({"i" + "1".zfill(21)}),
        progress=silent,
    )


def read(sets: Path, name: str) -> pa.Table:
    return ds.dataset(sets / name).to_table().sort_by(SETS[name])


def list_lengths(sets: Path, name: str) -> dict[str, int]:
    """Where a list is cut depends on the last bits of sums, which come in any order."""
    return {row["item"]: len(row["items"]) for row in ds.dataset(sets / name).to_table().to_pylist()}


@pytest.mark.timeout(1800)  # four JVMs
def test_a_cluster_of_processes_makes_the_same_sets(spark: SparkSession, tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", 2_000, 0, silent)
    build(spark, tmp_path / "lake", tmp_path / "one")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "lake"), str(tmp_path / "cluster")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in SETS:
        assert read(tmp_path / "cluster", name) == read(tmp_path / "one", name)
    for name in LISTS:
        assert list_lengths(tmp_path / "cluster", name) == list_lengths(tmp_path / "one", name) != {}
    assert len(read(tmp_path / "one", "users")) > 15
    assert len(read(tmp_path / "one", "impressions")) == 20
