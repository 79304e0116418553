"""Connections to the servers that the settings name."""

import contextlib
import re
from collections.abc import Iterator

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from feature_store.contracts.errors import Unavailable
from infra.settings import Settings, variable

_PASSWORD = re.compile(r"(://[^/?#:@]*:)[^/?#]*(?=@)|([?&]password=)[^&#]*")
_RETRY = Retry(ExponentialBackoff(cap=0.5, base=0.05), 6)  # rides through a restart of the server


def kafka_bootstrap(settings: Settings) -> str:
    """Address of the broker. Raises Unavailable if there is none."""
    if settings.kafka.bootstrap is None:
        raise Unavailable(_missing("broker", variable("kafka", "bootstrap")))
    return settings.kafka.bootstrap


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
    """A connection to the online store that answers. Raises Unavailable if it does not."""
    client = redis.Redis.from_url(redis_url(settings), retry=_RETRY)
    try:
        client.ping()
    except redis.RedisError as error:
        client.close()
        raise Unavailable(
            f"The online store does not answer: {error}. Check redis.url, or run `matchloop up`."
        ) from None
    try:
        yield client
    finally:
        client.close()


def without_password(address: str) -> str:
    """A URL to show to people."""
    return _PASSWORD.sub(r"\1\2***", address)


def _missing(what: str, name: str) -> str:
    return f"No {what} is running in this home directory. Start the stack with `matchloop up`, or set {name}."
