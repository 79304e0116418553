"""Real servers for integration tests: the stack's own commands, on free ports, gone when the tests end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pyspark.sql import SparkSession

from feature_store.contracts.errors import Unavailable
from infra import servers
from infra.leash import leashed
from infra.servers import HealthCheck
from offline_training.data.spark import spark_session, stop_session
from offline_training.settings import SparkSettings
from tests.processes import unmarked

_START_SECONDS = 150.0


@contextlib.contextmanager
def _running(command: list[str], answers: HealthCheck) -> Iterator[int]:
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
    with _running(servers.broker_command(port), lambda: servers.kafka_answers(servers.LOOPBACK, port)) as pid:
        yield Server(f"{servers.LOOPBACK}:{port}", pid)


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
    with _running(servers.redis_command(port, directory), lambda: servers.redis_answers(servers.LOOPBACK, port)) as pid:
        yield Server(f"redis://{servers.LOOPBACK}:{port}/0", pid)


@pytest.fixture(scope="module")
def redis_url(redis_server: Server) -> str:
    """URL of an empty Redis-protocol server with an append-only file, one per test module."""
    return redis_server.address


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One Spark session for all tests, on one core."""
    with unmarked():
        session = spark_session(SparkSettings(master="local[1]", driver_memory="1g", shuffle_partitions=1), "tests")
    yield session
    stop_session(session)
