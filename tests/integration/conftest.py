"""Real servers for integration tests: the stack's own commands, on free ports, gone when the tests end."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyspark.sql import SparkSession

from feature_store.contracts.errors import Unavailable
from feature_store.online.deployment import Active
from infra import servers
from infra.leash import leashed
from infra.servers import HealthCheck
from offline_training.data.spark import spark_session, stop_session
from offline_training.settings import SparkSettings
from tests.processes import unmarked

_START_SECONDS = 150.0


@contextlib.contextmanager
def running(command: list[str], answers: HealthCheck) -> Iterator[int]:
    """A server's process id, once it answers."""
    process = subprocess.Popen(leashed(command, os.getpid(), signal.SIGKILL), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                answers()
                break
            except (OSError, Unavailable):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:  # the broker waits for its clients
            process.kill()
            process.wait()


class Server(NamedTuple):
    """A server that runs."""

    address: str
    pid: int


@contextlib.contextmanager
def running_broker(port: int) -> Iterator[Server]:
    """A Kafka-protocol broker with empty topics."""
    with running(servers.broker_command(port), lambda: servers.kafka_answers(servers.LOOPBACK, port)) as pid:
        yield Server(f"{servers.LOOPBACK}:{port}", pid)


@contextlib.contextmanager
def running_broker_behind(port: int) -> Iterator[int]:
    """Port of a broker that tells its clients another one: of what stands in front of it."""
    own = servers.free_port(taken=frozenset({port}))
    command = servers.broker_command(own, advertised=port)
    with running(command, lambda: servers.kafka_answers(servers.LOOPBACK, own)):
        yield own


@pytest.fixture(scope="module")
def broker_server() -> Iterator[Server]:
    """The broker of the test module."""
    with running_broker(servers.free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def broker(broker_server: Server) -> str:
    """host:port of a Kafka-protocol broker with empty topics, one per test module."""
    return broker_server.address


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Redis-protocol server of the test module."""
    port = servers.free_port()
    directory: Path = tmp_path_factory.mktemp("redis")
    with running(servers.redis_command(port, directory), lambda: servers.redis_answers(servers.LOOPBACK, port)) as pid:
        yield Server(f"redis://{servers.LOOPBACK}:{port}/0", pid)


@pytest.fixture(scope="module")
def redis_url(redis_server: Server) -> str:
    """URL of an empty Redis-protocol server with an append-only file, one per test module."""
    return redis_server.address


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Active]:
    """A home in which `tiny_job` has trained a first release: to be copied."""
    from offline_training.jobs.train import train  # and with it PyTorch, which other tests need not wait for
    from offline_training.progress import silent
    from tests.tiny_job import tiny_job

    port, directory = servers.free_port(), tmp_path_factory.mktemp("trained")
    answers = partial(servers.redis_answers, servers.LOOPBACK, port)
    with unmarked(), running(servers.redis_command(port, directory), answers):
        made = train(tiny_job(directory / "home", f"redis://{servers.LOOPBACK}:{port}/0", "trained"), silent)
    return directory / "home", Active(made.release, made.namespace)


Serving = Callable[[Path, str], Active]


@pytest.fixture(scope="module")
def serving(trained_home: tuple[Path, Active], redis_url: str) -> Serving:
    """Makes a copy of that home at a path, whose release serves under a prefix of Redis' keys."""
    from tests.tiny_job import tiny_job

    home, active = trained_home

    def serves(path: Path, prefix: str) -> Active:
        shutil.copytree(home, path, dirs_exist_ok=True)
        tiny_job(path, redis_url, prefix).online.deployment.activate(active)
        return active

    return serves


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One Spark session for all tests, on one core."""
    with unmarked():
        session = spark_session(SparkSettings(master="local[1]", driver_memory="1g", shuffle_partitions=1), "tests")
    yield session
    stop_session(session)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, as playwright.sync_api.Browser; ask for it where tests.browser.needs_browser holds. While it
    is there, asyncio has a running loop: no other module's tests may find that."""
    from playwright.sync_api import sync_playwright

    from tests.browser import CHROMIUM

    with sync_playwright() as started:
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = started.chromium.launch(executable_path=CHROMIUM, args=alone)
        yield opened
        opened.close()
