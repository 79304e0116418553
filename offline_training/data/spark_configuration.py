"""What a Spark session is configured with. Of several words on a property the first counts: of spark-submit, of the
settings, of spark-defaults.conf, and last what is good for a session on this machine alone."""

import itertools
import os
import re
import shlex
import sys
from pathlib import Path

import pyspark
from pyspark import SparkConf

from offline_training.settings import SparkSettings

LOOPBACK = "127.0.0.1"
LOCAL_MASTER = "local[*]"
_DRIVER_MEMORY = "2g"
# Jobs of seconds to a few minutes end before the optimizing compiler, which takes half the processor, has paid off: of
# 300,000 rows it makes tasks a third quicker, and the whole dearer. Executors of a cluster are other JVMs and keep it.
_QUICK_START = "-XX:TieredStopAtLevel=1"
_LONG_JOB_ROWS = 1_000_000
_NO_PROGRESS_BAR = {"spark.ui.showConsoleProgress": "false"}  # which a session that Python starts would draw
# What the jobs are written for, whatever is good elsewhere in the cluster.
_NEEDED = {"spark.sql.session.timeZone": "UTC", "spark.sql.execution.arrow.pyspark.enabled": "true"}
_LOCAL = {
    "spark.driver.host": LOOPBACK,
    "spark.driver.bindAddress": LOOPBACK,
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
}


def submitted() -> bool:
    """Whether spark-submit started this process, and with it the JVM."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def is_local(master: str) -> bool:
    """Whether a master is the driver itself."""
    return re.match(r"local(\[|$)", master) is not None


def folder() -> Path:
    """Where Spark's defaults, environment and logging are said, whether it is there or not."""
    home = os.environ.get("SPARK_HOME") or pyspark.__path__[0]
    return Path(os.environ.get("SPARK_CONF_DIR") or Path(home) / "conf")


def before_start(settings: SparkSettings, app: str) -> SparkConf:
    """What a JVM that this process starts is told on its command line, which comes before its defaults file."""
    conf = SparkConf(loadDefaults=False)
    return conf.setAll([("spark.app.name", app), *(_NO_PROGRESS_BAR | _stated(settings)).items()])


def environment(settings: SparkSettings, rows: int, logging: Path) -> dict[str, str]:
    """Variables for a JVM that this process starts; its defaults file has the last word on them. rows: about how many
    will be read. logging: file for Log4j, unless Spark's folder has one."""
    options = [] if rows >= _LONG_JOB_ROWS else [_QUICK_START]
    if not (folder() / "log4j2.properties").exists():
        options.append(f"-Dlog4j2.configurationFile={logging.as_uri()}")
    variables = {
        "SPARK_CONF_DIR": str(folder()),
        "SPARK_DRIVER_MEMORY": os.environ.get("SPARK_DRIVER_MEMORY", _DRIVER_MEMORY),
        "SPARK_SUBMIT_OPTS": " ".join([*options, *os.environ.get("SPARK_SUBMIT_OPTS", "").split()]),
    }
    if is_local(master(settings)):
        variables["SPARK_LOCAL_IP"] = LOOPBACK  # without it a host name that does not resolve stops Spark
    return variables


def master(settings: SparkSettings) -> str:
    """The master of a session that this process starts."""
    stated = _stated(settings).get("spark.master")
    return stated or _master_of_arguments() or _master_of_file() or LOCAL_MASTER


def complete(conf: SparkConf, settings: SparkSettings) -> SparkConf:
    """The configuration of a session, from that of the JVM, which knows what was submitted and the defaults file."""
    stated = _stated(settings)
    for key, value in stated.items():
        if not (submitted() and conf.contains(key)):
            conf.set(key, value)
    conf.setAll([(key, value) for key, value in _NEEDED.items() if key not in stated])
    if is_local(conf.get("spark.master") or LOCAL_MASTER):
        defaults = _LOCAL | {"spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for key, value in defaults.items():
            conf.setIfMissing(key, value)
    return conf


def _stated(settings: SparkSettings) -> dict[str, str]:
    """What the settings say; nothing of what they leave open."""
    said = {
        "spark.master": settings.master,
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.shuffle.partitions": settings.shuffle_partitions,
    }
    return {key: str(value) for key, value in said.items() if value is not None} | settings.properties


def _master_of_arguments() -> str | None:
    arguments = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    return dict(itertools.pairwise(arguments)).get("--master")


def _master_of_file() -> str | None:
    file = folder() / "spark-defaults.conf"
    found = re.search(r"^\s*spark\.master[\s=:]+(\S+)", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found and found[1]
