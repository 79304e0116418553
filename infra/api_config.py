"""What the settings tell an API process."""

from pathlib import Path

from infra.connections import kafka_bootstrap, redis_url
from infra.dashboard import Dashboard
from infra.settings import Settings
from online_serving.config import ServerConfig


def api_config(settings: Settings, config: Path | None = None) -> ServerConfig:
    """Of an API process of the installation. config: the settings file, where one is named.

    Raises Unavailable if the settings name no broker or no online store.
    """
    return ServerConfig(
        home=settings.home,
        store=settings.layout.store,
        secret=settings.secret_bytes(),
        bootstrap=kafka_bootstrap(settings),
        redis_url=redis_url(settings),
        kafka=settings.kafka,
        redis=settings.redis,
        serving=settings.serving,
        bandit=settings.bandit,
        rewards=settings.rewards,
        webhooks=settings.webhooks,
        overview=Dashboard(settings, config),
    )
