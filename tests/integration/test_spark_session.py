"""Spark starts with whatever Java there is, says nothing, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.contracts.errors import Unavailable
from offline_training.data.spark import java_home

ROOT = Path(__file__).parents[2]
# What Spark's own start script calls.
SHELL = ("sh", "bash", "dirname", "uname", "cat", "readlink", "head")

PROGRAM = """
import psutil
from offline_training.data.spark import spark_session, stop_session
from offline_training.settings import SparkSettings

def count(master, rows_to_come):
    spark = spark_session(SparkSettings(master=master, driver_memory="512m"), "test", rows_to_come)
    assert spark_session(SparkSettings(master=master), "again") is not None
    rows = spark.range(1000).repartition(3).count()
    zone = spark.conf.get("spark.sql.session.timeZone")
    flags = spark._jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments()
    quick = any("TieredStopAtLevel" in str(flag) for flag in flags)
    stop_session(spark)
    return rows, zone, quick, psutil.Process().children(recursive=True)

print(count("local[1]", 999_999), count("local[2]", 1_000_000))
"""


def run_without_java(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    shell = tmp_path / "bin"
    shell.mkdir()
    for name in SHELL:
        found = shutil.which(name)
        assert found
        (shell / name).symlink_to(found)
    environment = {"PATH": str(shell), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_machine_without_java_runs_spark_silently_and_twice(tmp_path: Path) -> None:
    done = run_without_java(PROGRAM, tmp_path)
    assert done.stderr == ""
    assert done.stdout == "(1000, 'UTC', True, []) (1000, 'UTC', False, [])\n"
    assert done.returncode == 0


def test_a_master_that_is_none_is_explained_without_a_stack_trace(tmp_path: Path) -> None:
    code = """
from feature_store.contracts.errors import Unavailable
from offline_training.data.spark import spark_session
from offline_training.settings import SparkSettings
try:
    spark_session(SparkSettings(master="lokal"), "test")
except Unavailable as error:
    print(error)
"""
    done = run_without_java(code, tmp_path)
    assert done.stderr == ""
    assert "Spark did not start with master 'lokal'" in done.stdout
    assert "Check spark.master" in done.stdout


def test_the_module_that_trimmed_runtimes_lack_is_not_asked_for() -> None:
    java = java_home() / "bin" / "java"
    done = subprocess.run(
        [java, "--add-modules=jdk.incubator.vector", "-version"], capture_output=True, text=True, check=True
    )
    assert "incubator" not in done.stderr


def test_a_broken_java_home_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text('#!/bin/sh\necho "    java.home = /old\n    java.specification.version = 1.8" >&2\n')
    old.chmod(0o755)
    for home in (tmp_path / "old", tmp_path / "nothing"):
        monkeypatch.setenv("JAVA_HOME", str(home))
        launcher = (java_home() / "bin" / "java").read_text()
        assert str(tmp_path) not in launcher


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(file))
    with pytest.raises(Unavailable, match=r"Cannot write to .* Set XDG_CACHE_HOME"):
        java_home()
