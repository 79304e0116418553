"""Connections to the servers that the settings name."""

import contextlib
from collections.abc import Iterator

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from feature_store.contracts.errors import Unavailable
from feature_store.online.connection import blocking_client
from feature_store.online.server import check_server
from infra.settings import Settings, variable
from streaming.kafka import Log

_RETRIES = 6  # rides through a restart of the server


def kafka_bootstrap(settings: Settings) -> str:
    """Address of the broker. Raises Unavailable if there is none."""
    if settings.kafka.bootstrap is None:
        raise Unavailable(_missing("broker", variable("kafka", "bootstrap")))
    return settings.kafka.bootstrap


def event_log(settings: Settings) -> Log:
    """The log's topics. Raises Unavailable if there is no broker."""
    return Log(settings.kafka, kafka_bootstrap(settings))


def redis_url(settings: Settings) -> str:
    """URL of the online store. Raises Unavailable if there is none."""
    if settings.redis.url is None:
        raise Unavailable(_missing("online store", variable("redis", "url")))
    return settings.redis.url.get_secret_value()


def mlflow_uri(settings: Settings) -> str:
    """URI of the tracking server. Raises Unavailable if there is none."""
    if settings.mlflow.tracking_uri is None:
        raise Unavailable(_missing("tracking server", variable("mlflow", "tracking_uri")))
    return settings.mlflow.tracking_uri


@contextlib.contextmanager
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    """A connection to the online store that answers. Raises Unavailable if it does not, InvalidInput if it was first
    used with another secret, or will not keep what it is given."""
    from feature_store.online.store import OnlineStore  # and with it NumPy: the commands that only look need none

    with contextlib.closing(unchecked_redis_client(settings)) as client:
        try:
            check_server(client)
            OnlineStore(client, settings.redis).deployment.check_secret(settings.keyring())
        except redis.RedisError as error:
            raise Unavailable(
                f"The online store does not answer: {error}. Check redis.url, or run `matchloop up`."
            ) from None
        yield client


def unchecked_redis_client(settings: Settings, retries: int = _RETRIES) -> redis.Redis:
    """A client of the online store, before any command. Raises InvalidInput if the URL is none."""
    return blocking_client(redis_url(settings), retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries))


def _missing(what: str, name: str) -> str:
    return f"No {what} is running in this home directory. Start the stack with `matchloop up`, or set {name}."
