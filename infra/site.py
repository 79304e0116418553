"""Where this installation's releases are kept and serve, put together from its settings and the servers that run."""

import contextlib
from collections.abc import Iterator

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import Unavailable
from feature_store.deployment_note import check_current
from feature_store.online.store import OnlineStore
from infra.connections import mlflow_uri, redis_client
from infra.settings import Settings
from offline_training.promotion.registry import Registry
from offline_training.promotion.releases import Site


@contextlib.contextmanager
def site(settings: Settings) -> Iterator[Site]:
    """settings: with the servers' addresses (Stack.settings). MLflow may be away. Raises Unavailable if Redis is, or
    has lost what serves."""
    uri = None
    with contextlib.suppress(Unavailable):
        uri = mlflow_uri(settings)
    with redis_client(settings) as client:
        online, state = OnlineStore(client, settings.redis), BanditStore(client, settings.redis)
        check_current(settings.home, settings.redis.prefix, online.deployment.to_note())
        yield Site(settings.layout, online, state, Registry(settings.mlflow, uri))
