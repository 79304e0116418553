"""Updaters for tests, in a thread of the test process."""

import threading
from pathlib import Path

import redis

from feature_store.bandit_state import BanditStore
from feature_store.home import Home
from feature_store.membership import Membership
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from streaming import updater
from streaming.health import Health
from streaming.kafka import Log
from streaming.settings import KafkaSettings, RewardSettings


def start_updater(
    kafka: KafkaSettings,
    broker: str,
    client: redis.Redis,
    settings: RedisSettings,
    home: Path,
    stop: threading.Event,
    group: str | None = None,
    health: Health | None = None,
) -> threading.Thread:
    """Starts an updater that runs until `stop`. Updaters of one group share the partitions; None: the settings'."""
    state, online = BanditStore(client, settings), OnlineStore(client, settings)
    shared = settings if group is None else settings.model_copy(update={"prefix": f"{settings.prefix}-{group}"})

    def work() -> None:
        with Membership(client, shared, session_seconds=1.0) as membership:
            updater.run(Log(kafka, broker), RewardSettings(), state, online, membership, Home(home), stop, health)

    thread = threading.Thread(target=work)
    thread.start()
    return thread
