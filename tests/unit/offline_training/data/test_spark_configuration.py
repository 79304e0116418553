"""Whose word on a Spark session counts; tests/integration/test_spark_cluster.py asks sessions that run."""

from pathlib import Path

import pytest

from offline_training.data import spark_configuration as configuration
from offline_training.settings import SparkSettings

LOGGING = Path("/nothing/log4j2.properties")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the defaults file; nothing else is said."""
    for name in (
        "SPARK_HOME",
        "PYSPARK_SUBMIT_ARGS",
        "PYSPARK_GATEWAY_PORT",
        "SPARK_DRIVER_MEMORY",
        "SPARK_SUBMIT_OPTS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    return tmp_path


def test_nothing_is_said_to_the_jvm_that_the_settings_leave_open() -> None:
    said = dict(configuration.before_start(SparkSettings(), "app").getAll())
    assert said == {"spark.app.name": "app", "spark.ui.showConsoleProgress": "false"}


def test_what_the_settings_say_is_said_and_properties_count_most() -> None:
    settings = SparkSettings(master="yarn", driver_memory="3g", properties={"spark.driver.memory": "4g"})
    said = dict(configuration.before_start(settings, "app").getAll())
    assert (said["spark.master"], said["spark.driver.memory"]) == ("yarn", "4g")


@pytest.mark.parametrize(
    "line", ["spark.master spark://a:1", "  spark.master = spark://a:1", "spark.master:spark://a:1"]
)
def test_the_master_is_read_as_spark_reads_it(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configuration.master(SparkSettings()) == "local[*]"
    (folder / "spark-defaults.conf").write_text(f"# spark.master yarn\nspark.masters x\n{line}\nspark.ui.port 1\n")
    assert configuration.master(SparkSettings()) == "spark://a:1"
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--name x --master spark://b:1 pyspark-shell")
    assert configuration.master(SparkSettings()) == "spark://b:1"
    assert configuration.master(SparkSettings(master="local[2]")) == "local[2]"


def test_only_a_session_of_this_machine_is_kept_on_loopback() -> None:
    assert configuration.environment(SparkSettings(), 0, LOGGING)["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert "SPARK_LOCAL_IP" not in configuration.environment(SparkSettings(master="spark://a:1"), 0, LOGGING)


def test_the_folder_and_the_environment_have_the_last_word(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configuration.environment(SparkSettings(), 999_999, LOGGING) == {
        "SPARK_CONF_DIR": str(folder),
        "SPARK_DRIVER_MEMORY": "2g",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=file:///nothing/log4j2.properties",
    }
    (folder / "log4j2.properties").touch()
    monkeypatch.setenv("SPARK_DRIVER_MEMORY", "5g")
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dours")
    found = configuration.environment(SparkSettings(), 1_000_000, LOGGING)
    assert (found["SPARK_DRIVER_MEMORY"], found["SPARK_SUBMIT_OPTS"]) == ("5g", "-Dours")


def test_spark_home_has_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_CONF_DIR")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert configuration.folder() == tmp_path / "conf"
