"""What goes wrong, for as long as a context is open, and how answers may look meanwhile."""

import contextlib
import json
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import MANIFEST
from feature_store.online.deployment import Active
from infra.benchmarks.faults.broker_link import Partition
from infra.benchmarks.faults.site import ITEMS, Site, server, wait_for
from infra.benchmarks.small_release import build_namespace, build_release, items
from infra.connections import event_log
from infra.servers import LOOPBACK, MLFLOW_ENVIRONMENT, http_answers, mlflow_command
from infra.site import site as connected_site
from offline_training.promotion.aliases import catch_up
from offline_training.promotion.promote import go_back, promote
from online_serving.answer_paths import AnswerPath
from online_serving.release_files import RANKER

_SLOW_SECONDS = 0.2
_FLAP_SECONDS = 0.3
_PAUSE_SECONDS = 3.0
_LEADERLESS, _LEADERLESS_SECONDS = 0, 12.0  # partition; longer than a record waits for its acknowledgement
_MLFLOW_SECONDS = 300.0  # it may take to start
_JUMP_MS = 3_600_000
_LARGE_BYTES = 10_000_000
_HEAD = (
    b"POST /v1/recommendations HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
_BODY = b'{"user_id": "gone"}'

_FULL = frozenset({AnswerPath.FULL})
_KNOWN = frozenset({AnswerPath.FULL, AnswerPath.CACHED_USER, AnswerPath.SEGMENT})

Fault = Callable[[Site], AbstractContextManager[None]]


class Case(NamedTuple):
    """A disturbance."""

    name: str
    fault: Fault
    paths: frozenset[AnswerPath]  # that answers may have meanwhile
    lasts: float | None = None  # seconds, None: as the others
    silent: int | None = None  # the only partition of the log that may not take decisions, None: any


@contextlib.contextmanager
def _flapping(site: Site) -> Iterator[None]:
    end = threading.Event()

    def flap() -> None:
        while not end.is_set():
            with site.redis_link.cut():
                end.wait(_FLAP_SECONDS)
            end.wait(_FLAP_SECONDS)

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def _redis_full(site: Site) -> Iterator[None]:
    before = {name: site.client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    site.client.config_set("maxmemory-policy", "noeviction")
    site.client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        for name, value in before.items():
            site.client.config_set(name, value)


@contextlib.contextmanager
def _without_leader(site: Site) -> Iterator[None]:
    topic = site.settings.kafka.topics.events
    with site.broker_link.without_leader(Partition(topic, event_log(site.settings).log_id(), _LEADERLESS)):
        yield


@contextlib.contextmanager
def _mlflow_down(site: Site) -> Iterator[None]:
    """Nobody answers at MLflow's address while a release is promoted; when somebody does, they are told of it."""
    uri = site.settings.mlflow.tracking_uri
    assert uri is not None
    port, folder = int(uri.rpartition(":")[2]), site.settings.home / "mlflow"
    following = _built(site, 5)
    with connected_site(site.settings) as at:
        promote(at, *following, override="The bench has it serve.")
        if at.online.deployment.active() != following:
            raise Unavailable(f"{following} was promoted and does not serve.")
        yield
        folder.mkdir()
        with server(mlflow_command(port, folder), forks=True, environment=MLFLOW_ENVIRONMENT) as process:
            wait_for(lambda: http_answers(LOOPBACK, port, "/health"), process, _MLFLOW_SECONDS)
            if (problem := catch_up(at)) is not None:
                raise Unavailable(problem)
            if (champion := at.registry.alias("champion")) != following.release:
                raise Unavailable(f"MLflow's champion is {champion}; {following.release} serves.")
        go_back(at)


def _built(site: Site, seed: int) -> Active:
    """Another release and a namespace of it."""
    home = site.settings.layout
    release = build_release(home.releases, catalogue=items(ITEMS), clusters=8, seed=seed)
    log_id, partitions = event_log(site.settings).log_id(), site.settings.kafka.partitions
    return Active(release, build_namespace(home.namespaces, home.releases, release, log_id, partitions))


def _activated(seed: int, damage: Callable[[Path], object]) -> Fault:
    """Another release is to serve, which is not whole; later the one from before again."""

    @contextlib.contextmanager
    def fault(site: Site) -> Iterator[None]:
        active, following = site.online.deployment.active(), _built(site, seed)
        assert active is not None
        damage(site.settings.layout.releases / following.release)
        site.online.deployment.activate(following)
        try:
            yield
        finally:
            site.online.deployment.activate(active)
            site.online.deployment.retire(following.namespace)

    return fault


def _truncated(release: Path) -> None:
    path = release / RANKER
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_bytes(release: Path) -> None:
    path = release / RANKER
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def _other_schema(release: Path) -> None:
    path = release / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema_version": 999}))


@contextlib.contextmanager
def _disk_full(site: Site) -> Iterator[None]:
    """No file of a process may grow, which is as near to a full disk as a process's limits come."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in site.pids()}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        running = set(site.pids())
        for pid, limits in before.items():
            if pid in running:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def _killed(site: Site) -> Iterator[None]:
    site.processes[0].send_signal(signal.SIGKILL)
    site.processes[0].wait()
    site.start(0)
    yield
    site.wait_until_ready()


@contextlib.contextmanager
def _restarted(site: Site) -> Iterator[None]:
    """One process after the other ends in order and is started anew."""
    for number in range(len(site.processes)):
        if (status := site.stop(number)) != 0:
            raise Unavailable(f"API process {number} ended with {status}.")
        site.start(number)
        site.wait_until_ready()
    yield


@contextlib.contextmanager
def _connections(site: Site, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as open_ones:
        yield [open_ones.enter_context(socket.create_connection((LOOPBACK, site.port))) for _ in range(count)]


@contextlib.contextmanager
def _slow_clients(site: Site) -> Iterator[None]:
    with _connections(site, 50) as connections:
        for connection in connections:
            connection.sendall(_HEAD % len(_BODY) + _BODY[:1])
        yield


@contextlib.contextmanager
def _gone_clients(site: Site) -> Iterator[None]:
    with _connections(site, 50) as connections:
        for connection in connections:
            connection.sendall(_HEAD % len(_BODY) + _BODY)
    yield


@contextlib.contextmanager
def _large_bodies(site: Site) -> Iterator[None]:
    for _ in range(3):
        with _connections(site, 1) as [connection], contextlib.suppress(ConnectionError):
            connection.sendall(_HEAD % _LARGE_BYTES)
            connection.sendall(b" " * _LARGE_BYTES)
    yield


def _idle_clients(count: int) -> Fault:
    @contextlib.contextmanager
    def fault(site: Site) -> Iterator[None]:
        with _connections(site, count):
            yield

    return fault


def _clock_ahead(milliseconds: int) -> Fault:
    @contextlib.contextmanager
    def fault(site: Site) -> Iterator[None]:
        site.clock_ahead(milliseconds)
        try:
            yield
        finally:
            site.clock_ahead(0)

    return fault


CASES = (
    Case("nothing", lambda _: contextlib.nullcontext(), _FULL),
    Case("Redis down", lambda site: site.redis_link.cut(), _KNOWN),
    Case("Redis slow", lambda site: site.redis_link.slow(_SLOW_SECONDS), _KNOWN),
    Case("Redis hangs", lambda site: site.redis_link.frozen(), _KNOWN),
    Case("Redis flapping", _flapping, _KNOWN),
    Case("Redis full", _redis_full, _FULL),
    Case("broker down", lambda site: site.broker_link.cut(), _FULL),
    Case("broker slow", lambda site: site.broker_link.slow(_SLOW_SECONDS), _FULL),
    Case("broker paused", lambda site: site.broker_link.frozen(), _FULL, lasts=_PAUSE_SECONDS),
    Case("partition without a leader", _without_leader, _FULL, _LEADERLESS_SECONDS, silent=_LEADERLESS),
    Case("MLflow down", _mlflow_down, _FULL),
    Case("release missing", _activated(1, shutil.rmtree), _FULL),
    Case("release truncated", _activated(2, _truncated), _FULL),
    Case("release with another hash", _activated(3, _other_bytes), _FULL),
    Case("release of another schema", _activated(4, _other_schema), _FULL),
    Case("disk full", _disk_full, _FULL),
    Case("API process killed", _killed, _FULL),
    Case("rolling restart", _restarted, _FULL),
    Case("clients that send slowly", _slow_clients, _FULL),
    Case("clients that go away", _gone_clients, _FULL),
    Case("bodies of 10 MB", _large_bodies, _FULL),
    Case("2,000 idle connections", _idle_clients(2_000), _FULL),
    Case("clock an hour ahead", _clock_ahead(_JUMP_MS), _FULL),
    Case("clock an hour behind", _clock_ahead(-_JUMP_MS), _FULL),
)
