"""A real API process's insides for tests: the application on a real port, in a thread of the test process."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import redis
import uvicorn

from feature_store.bandit_state import BanditStore
from feature_store.contracts.catalogue import Item
from feature_store.contracts.events import Event, decode
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import build_namespace, build_release
from online_serving.app import create_app
from online_serving.config import ServerConfig
from online_serving.server import http_settings
from online_serving.settings import ServingSettings
from streaming.kafka import Log, Reader
from streaming.settings import BanditMode, BanditSettings, KafkaSettings, RewardSettings

SECRET = b"a secret for the tests"
SHORT_IDLE = httpx.Limits(keepalive_expiry=2.0)  # a client gives an idle connection up before the server does
_pause = threading.Event()


def wait_until(condition: Callable[[], Any], seconds: float = 150.0) -> None:
    """Looks every 10 ms until the condition holds."""
    for _ in range(int(seconds * 100)):
        if condition():
            return
        _pause.wait(0.01)
    raise AssertionError(f"the condition did not come true in {seconds} s")


class Installation:
    """Everything beside the API: a log, a Redis with catalogue, releases and namespaces on disk."""

    def __init__(self, broker: str, redis_url: str, home: Path, name: str, partitions: int = 2) -> None:
        self.broker, self.redis_url, self.home = broker, redis_url, home
        self.kafka = KafkaSettings(partitions=partitions, tick_seconds=0.5, topic_prefix=f"{name}-")
        self.redis_settings = RedisSettings(prefix=name)
        self.log = Log(self.kafka, broker)
        self.log.create_topics()
        self.client = redis.Redis.from_url(redis_url)
        self.online = OnlineStore(self.client, self.redis_settings)
        self.bandit = BanditStore(self.client, self.redis_settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def release(self, catalogue: Sequence[Item], **shape: int) -> Active:
        """Builds a release of the catalogue with a namespace."""
        release = build_release(self.home / "releases", catalogue=catalogue, **shape)
        namespace = build_namespace(
            self.home / "namespaces", self.home / "releases", release, self.log.log_id(), self.kafka.partitions
        )
        return Active(release, namespace)

    def config(self, mode: BanditMode = BanditMode.EXPLORE, **serving: Any) -> ServerConfig:
        """Settings of an API process here."""
        return ServerConfig(
            home=self.home,
            secret=SECRET,
            bootstrap=self.broker,
            redis_url=self.redis_url,
            kafka=self.kafka,
            redis=self.redis_settings,
            serving=ServingSettings(**{"slate_size": 5, **serving}),
            bandit=BanditSettings(mode=mode),
            rewards=RewardSettings(),
            seed=7,
        )


def events(installation: Installation) -> list[Event]:
    """What the log holds, partition by partition."""
    offsets = dict.fromkeys(range(installation.kafka.partitions), 0)
    reader = Reader(installation.broker, installation.kafka.topics.events, offsets)
    try:
        found: list[Event] = []
        while records := reader.poll(500):
            found += [event for record in records for event in decode(record.value)]
        return found
    finally:
        reader.close()


@contextlib.contextmanager
def running(config: ServerConfig, *, ready: bool = True, port: int = 0) -> Iterator[httpx.Client]:
    """Serves the application and yields a client of it, when it is ready. port: 0 for one that the system picks."""
    settings = http_settings(create_app(config), config.serving)
    settings.port = port
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started, "the application did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150, limits=SHORT_IDLE) as client:
            if ready:
                wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join()
