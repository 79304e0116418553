"""An installation whose links can be cut: broker and Redis behind proxies, updater, sink, and two API processes."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import redis

from feature_store.contracts.errors import Unavailable
from feature_store.online.store import OnlineStore
from infra import servers
from infra.benchmarks.faults.broker_link import BrokerLink
from infra.benchmarks.faults.link import Link
from infra.benchmarks.small_stack import publish
from infra.leash import leashed
from infra.programs import SINK, UPDATER
from infra.settings import Settings, load
from infra.stack import Stack
from offline_training.progress import Progress, section

ITEMS = 200
_START_SECONDS = 120.0
_END_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_WORKERS = 2


class Site:
    """What the cases disturb."""

    def __init__(self, stack: Stack, redis_link: Link, broker_link: BrokerLink, client: redis.Redis) -> None:
        """client: of Redis itself, past its link."""
        self.stack, self.settings = stack, stack.settings
        self.redis_link, self.broker_link, self.client = redis_link, broker_link, client
        self.online = OnlineStore(client, self.settings.redis)
        self.port = servers.free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.operations: list[int] = []  # ports of the processes' own
        self._clock = self.settings.home / "clock"
        self.clock_ahead(0)

    @property
    def url(self) -> str:
        """Where both processes answer."""
        return f"http://{servers.LOOPBACK}:{self.port}"

    def start(self, number: int) -> None:
        """Starts an API process, which need not have been there before; does not wait until it answers."""
        own = servers.free_port()
        arguments = [sys.executable, "-m", "infra.benchmarks.faults.api", str(self.port), str(own), str(self._clock)]
        process = subprocess.Popen(
            leashed(arguments, os.getpid(), signal.SIGKILL), env=self.stack.environment(), stdout=subprocess.DEVNULL
        )
        self.processes[number : number + 1] = [process]
        self.operations[number : number + 1] = [own]

    def wait_until_ready(self) -> None:
        """Until every API process is. Raises Unavailable if one is not in time."""
        for process, own in zip(self.processes, self.operations, strict=True):
            wait_for(partial(servers.api_answers, servers.LOOPBACK, own), process)

    def stop(self, number: int) -> int:
        """Has an API process end in order. Returns its exit status."""
        self.processes[number].terminate()
        return self.processes[number].wait(_END_SECONDS)

    def clock_ahead(self, milliseconds: int) -> None:
        """Sets the clocks of the API processes."""
        told = self._clock.with_suffix(".new")
        told.write_text(str(milliseconds))
        told.replace(self._clock)

    def pids(self) -> list[int]:
        """Of every process of MatchLoop's own."""
        return [program.pid for program in self.stack.status()] + [process.pid for process in self.processes]


def wait_for(answers: Callable[[], None], process: "subprocess.Popen[bytes]", seconds: float = _START_SECONDS) -> None:
    """Until a server answers. Raises Unavailable if it has ended, or does not answer in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return answers()
        except (OSError, Unavailable) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{process.args!r} does not answer: {error}") from None
            time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def running_site(progress: Progress) -> Iterator[Site]:
    """An installation of its own in which all are ready. Raises Unavailable if something does not come up."""
    with contextlib.ExitStack() as parts:
        home = Path(
            parts.enter_context(tempfile.TemporaryDirectory(prefix="matchloop-faults-", ignore_cleanup_errors=True))
        )
        broker, broker_behind, store, store_behind, mlflow = _free_ports(5)
        broker_process = parts.enter_context(server(servers.broker_command(broker_behind, advertised=broker)))
        store_process = parts.enter_context(server(servers.redis_command(store_behind, home)))
        wait_for(lambda: servers.kafka_answers(servers.LOOPBACK, broker_behind), broker_process)
        wait_for(lambda: servers.redis_answers(servers.LOOPBACK, store_behind), store_process)
        broker_link = parts.enter_context(BrokerLink(broker, broker_behind))
        redis_link = parts.enter_context(Link(store, store_behind))
        stack = parts.enter_context(Stack(_settings(home, broker, store, mlflow)))
        publish(stack.settings, ITEMS, {"clusters": 8, "edges_per_cluster": 60})
        stack.start(UPDATER, SINK, progress=section(progress, 0.0, 0.5))
        client = parts.enter_context(contextlib.closing(redis.Redis(port=store_behind)))
        site = Site(stack, redis_link, broker_link, client)
        parts.callback(_end, site)
        for number in range(_WORKERS):
            site.start(number)
        progress(0.6, "starting API processes")
        site.wait_until_ready()
        yield site


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    for _ in range(count):
        ports.append(servers.free_port(taken=frozenset(ports)))
    return ports


def _settings(home: Path, broker: int, store: int, mlflow: int) -> Settings:
    values = load().revealed()
    values["home"], values["lake"]["url"] = home, None
    values["kafka"] |= {"bootstrap": f"{servers.LOOPBACK}:{broker}", "partitions": 2}
    values["redis"] |= {"url": f"redis://{servers.LOOPBACK}:{store}/0"}
    values["mlflow"] |= {"tracking_uri": f"http://{servers.LOOPBACK}:{mlflow}"}  # where nobody answers
    values["serving"] |= {
        "api_key": None, "host": servers.LOOPBACK, "port": 0, "workers": _WORKERS,
        "drain_seconds": 1.0,
    }  # fmt: skip
    values["lake"] |= {"flush_seconds": 1.0}
    return Settings(**values)


def _end(site: Site) -> None:
    for process in site.processes:
        process.kill()
        process.wait()


@contextlib.contextmanager
def server(
    command: list[str], forks: bool = False, environment: Mapping[str, str] | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that ends with this, and with this process. forks: it has children that are to end with it.
    environment: more variables."""
    sent = signal.SIGTERM if forks else signal.SIGKILL
    process = subprocess.Popen(
        leashed(command, os.getpid(), sent, group=forks),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(sent)
        process.wait()
