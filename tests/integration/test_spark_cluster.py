"""The training-set job on a standalone cluster: a master and two workers, which share files with the driver alone."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyspark
import pytest
from pyspark.sql import SparkSession

import infra.spark.matchloop
from infra import servers
from infra.benchmarks.small_release import items
from infra.benchmarks.spark.generator import write_lake
from offline_training.data.spark import java_home
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from streaming.settings import RewardSettings
from tests.api_server import Installation
from tests.integration.conftest import running

ROOT = Path(__file__).parents[2]
SPARK = Path(pyspark.__path__[0])
QUICK = "-XX:TieredStopAtLevel=1"
DEFAULTS = f"""# What a company's administrators wrote.
spark.master                                        {{master}}
spark.cores.max=2
spark.executor.memory                               700m
spark.driver.memory                                 600m
spark.executor.extraJavaOptions                     {QUICK}
spark.sql.shuffle.partitions                        3
spark.sql.session.timeZone                          Asia/Tokyo
spark.ui.enabled                                    false
spark.scheduler.minRegisteredResourcesRatio         1.0
spark.scheduler.maxRegisteredResourcesWaitingTime   600s
"""
PROGRAM = """
import json, sys
from pathlib import Path
from offline_training.data.spark import spark_session, stop_session
from offline_training.settings import SparkSettings
from tests.integration.test_spark_cluster import build

settings = SparkSettings(**json.loads(sys.argv[1]))
spark = spark_session(settings, "test")
if len(sys.argv) > 3:
    build(spark, Path(sys.argv[3]), Path(sys.argv[4]))
else:
    stop_session(spark)
    spark = spark_session(settings, "again")  # on the JVM that was there before
    assert spark.range(1000).repartition(3).count() == 1000
conf = spark.sparkContext.getConf()
names = ("driver.memory", "executor.memory", "app.name", "sql.shuffle.partitions", "sql.session.timeZone")
found = {name: conf.get(f"spark.{name}") for name in names}
nodes = spark._jsc.sc().getExecutorMemoryStatus().size()
heap = spark._jvm.java.lang.Runtime.getRuntime().maxMemory()
stop_session(spark)
Path(sys.argv[2]).write_text(json.dumps(found | {"nodes": nodes, "heap_mb": round(heap / 2**20)}))
"""
SETS = {"items": "item", "items_at_validation": "item", "users": "user", "impressions": "decision"}
LISTS = ("item_lists", "item_lists_at_validation")


class Cluster(NamedTuple):
    """A standalone cluster, and what who uses it has in the environment."""

    master: str
    page: int  # port of the master's page
    environment: dict[str, str]

    def defaults(self, folder: Path, master: str) -> dict[str, str]:
        """The environment with the administrators' word on Spark."""
        folder.mkdir()
        (folder / "spark-defaults.conf").write_text(DEFAULTS.format(master=master))
        return self.environment | {"SPARK_CONF_DIR": str(folder)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers of a core each, on loopback."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "spark-defaults.conf").touch()
    environment = {
        "PATH": f"{java_home() / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": os.environ["HOME"],
        "JAVA_HOME": str(java_home()),
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": servers.LOOPBACK,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": QUICK,
        "SPARK_LOG_DIR": str(folder),
    }
    deploy = "org.apache.spark.deploy"
    port = servers.free_port()
    page = servers.free_port(taken=frozenset({port}))
    master = f"spark://{servers.LOOPBACK}:{port}"
    arguments = ["--host", servers.LOOPBACK, "--port", str(port), "--webui-port", str(page)]
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as variables:
        for name, value in environment.items():
            variables.setenv(name, value)
        start = [str(SPARK / "bin" / "spark-class")]
        stack.enter_context(running([*start, f"{deploy}.master.Master", *arguments], lambda: workers(page, 0)))
        for number in (1, 2):
            work = folder / str(number)
            here = ["--host", servers.LOOPBACK, "--webui-port", "0", "--cores", "1", "--memory", "1g"]
            command = [*start, f"{deploy}.worker.Worker", *here, "--work-dir", str(work), master]
            stack.enter_context(running(command, functools.partial(workers, page, number)))
        yield Cluster(master, page, environment)


def state(page: int) -> Any:
    """What the master at the port says. Raises OSError if it does not yet."""
    with urllib.request.urlopen(f"http://{servers.LOOPBACK}:{page}/json/") as answer:
        if answer.headers.get_content_subtype() != "json":  # it answers everything with its page at first
            raise OSError("no JSON yet")
        return json.load(answer)


def workers(page: int, number: int) -> None:
    """Raises OSError unless the master at the port has so many workers."""
    if (alive := state(page)["aliveworkers"]) < number:
        raise OSError(f"{alive} workers")


class Built(NamedTuple):
    """A lake, and the sets that one process makes of it."""

    lake: Path
    sets: Path


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    write_lake(folder / "lake", 2_000, 0, silent)
    build(spark, folder / "lake", folder / "sets")
    return Built(folder / "lake", folder / "sets")


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


def check(one: Path, other: Path) -> None:
    """Whether the sets are the same."""
    for name in SETS:
        assert read(other, name) == read(one, name)
    for name in LISTS:
        assert list_lengths(other, name) == list_lengths(one, name) != {}
    assert len(read(one, "users")) > 15
    assert len(read(one, "impressions")) == 20


@pytest.mark.timeout(1800)  # JVMs
def test_the_defaults_file_names_the_cluster_and_the_settings_what_differs(
    cluster: Cluster, built: Built, tmp_path: Path
) -> None:
    environment = cluster.defaults(tmp_path / "conf", cluster.master)
    settings = {"shuffle_partitions": 2, "properties": {"spark.executor.memory": "800m"}}
    arguments = [json.dumps(settings), tmp_path / "found", built.lake, tmp_path / "sets"]
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "found").read_text()) == {
        "app.name": "test",
        "driver.memory": "600m",
        "executor.memory": "800m",
        "heap_mb": 600,
        "nodes": 3,  # the driver and two executors
        "sql.session.timeZone": "UTC",
        "sql.shuffle.partitions": "2",
    }
    check(built.sets, tmp_path / "sets")


@pytest.mark.timeout(1800)  # JVMs
def test_what_was_submitted_counts_more_than_file_and_settings(cluster: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = cluster.defaults(tmp_path / "conf", "spark://nowhere:7077")
    settings = {"master": "local[1]", "shuffle_partitions": 5, "driver_memory": "1500m"}
    submitted = ["--master", cluster.master, "--conf", "spark.sql.shuffle.partitions=2", "--driver-memory", "500m"]
    arguments = [json.dumps(settings), tmp_path / "found"]
    command = [SPARK / "bin" / "spark-submit", *submitted, "--name", "nightly", program, *arguments]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found").read_text()) == {
        "app.name": "nightly",
        "driver.memory": "500m",
        "executor.memory": "700m",  # of the file: nobody said otherwise
        "heap_mb": 500,
        "nodes": 3,
        "sql.session.timeZone": "UTC",
        "sql.shuffle.partitions": "2",
    }


@pytest.mark.timeout(1800)  # JVMs
def test_a_whole_retrain_may_be_submitted(cluster: Cluster, broker: str, redis_url: str, tmp_path: Path) -> None:
    with Installation(broker, redis_url, tmp_path, "submitted") as made:
        write_lake(made.home / "lake", 2_000, 0, silent)
        log = made.home / "lake" / "events" / "log=bench" / "partition=0"
        (log / "0.parquet").rename(log / "0-60.parquet")
        made.online.deployment.activate(before := made.release(items(20)))
        variables = {
            "MATCHLOOP_HOME": str(made.home),
            "MATCHLOOP_KAFKA_BOOTSTRAP": broker,
            "MATCHLOOP_KAFKA_TOPIC_PREFIX": made.kafka.topic_prefix,
            "MATCHLOOP_REDIS_URL": redis_url,
            "MATCHLOOP_REDIS_PREFIX": made.redis_settings.prefix,
            "MATCHLOOP_TRAINING_EPOCHS": "1",
            "MATCHLOOP_TRAINING_RANKER_EPOCHS": "1",
            "MATCHLOOP_TRAINING_DIMENSIONS": "8",
            "MATCHLOOP_SPARK_SHUFFLE_PARTITIONS": "2",
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        }
        submitted = ["--master", cluster.master, "--name", "nightly", "--conf", "spark.cores.max=2"]
        submitted += ["--executor-memory", "700m", "--driver-memory", "600m", str(infra.spark.matchloop.__file__)]
        wanted = ["retrain", "--override", "nothing is learnt from noise", "--stale"]  # no sink and no updater here
        done = subprocess.run(
            [str(SPARK / "bin" / "spark-submit"), *submitted, *wanted],
            env=cluster.environment | variables, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        now = made.online.deployment.active()
        assert now is not None
        assert now.release != before.release
        assert f"Release {now.release} serves, with namespace {now.namespace}." in done.stdout
    assert ("nightly", "FINISHED") in [(app["name"], app["state"]) for app in state(cluster.page)["completedapps"]]
