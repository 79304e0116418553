"""Everything one API process is told, in one object."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_store.home import Home
from feature_store.object_store import ObjectStore
from feature_store.settings import RedisSettings
from online_serving.event_mapping import WebhookSettings
from online_serving.settings import ServingSettings
from streaming.settings import BanditSettings, KafkaSettings, RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings, addresses and places of one API process."""

    home: Path  # holds releases/ and namespaces/
    store: ObjectStore | None = None  # that has the lake, if it is not in the home
    secret: bytes  # the installation's, see contracts.identity
    bootstrap: str  # host:port of the log
    redis_url: str
    kafka: KafkaSettings
    redis: RedisSettings
    serving: ServingSettings
    bandit: BanditSettings
    rewards: RewardSettings
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    # What is known of the whole installation, for the dashboard; may take a second. None: this process alone is there.
    overview: Callable[[], dict[str, Any]] | None = None
    seed: int | None = None  # of exploration; None: from the operating system, different in every process

    @property
    def layout(self) -> Home:
        """Where the installation keeps what it makes."""
        return Home(self.home, self.store)
