"""Everything one API process is told, in one object."""

from dataclasses import dataclass
from pathlib import Path

from feature_store.settings import RedisSettings
from online_serving.settings import ServingSettings
from streaming.settings import BanditSettings, KafkaSettings, RewardSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings, addresses and places of one API process."""

    home: Path  # holds releases/ and namespaces/
    secret: bytes  # the installation's, see contracts.identity
    bootstrap: str  # host:port of the log
    redis_url: str
    kafka: KafkaSettings
    redis: RedisSettings
    serving: ServingSettings
    bandit: BanditSettings
    rewards: RewardSettings
    seed: int | None = None  # of exploration; None: from the operating system, different in every process
