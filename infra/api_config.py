"""What the settings tell an API process."""

from functools import partial

from infra.connections import kafka_bootstrap, redis_url
from infra.settings import Settings
from infra.status import overview
from online_serving.config import ServerConfig


def api_config(settings: Settings) -> ServerConfig:
    """Of an API process of the installation. Raises Unavailable if the settings name no broker or no online store."""
    return ServerConfig(
        home=settings.home,
        secret=settings.secret_bytes(),
        bootstrap=kafka_bootstrap(settings),
        redis_url=redis_url(settings),
        kafka=settings.kafka,
        redis=settings.redis,
        serving=settings.serving,
        bandit=settings.bandit,
        rewards=settings.rewards,
        overview=partial(overview, settings),
    )
