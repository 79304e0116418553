"""The law held against a running installation: every namespace's state, and its base plus a replay of the log."""

import redis

from feature_store.bandit_state import BanditStore
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online import OnlineStore
from feature_store.rewriting import reading
from infra.connections import kafka_bootstrap
from infra.settings import Settings
from streaming.replay import Comparison, compare


def verify(settings: Settings, client: redis.Redis) -> dict[str, list[Comparison]]:
    """By namespace that is folded, how each partition's stored state compares with its replay."""
    home, state = Home(settings.home), BanditStore(client, settings.redis)
    with reading(settings.home):
        return {
            name: compare(
                Namespace.load(home.namespaces, name),
                state,
                home.lake,
                settings.rewards,
                kafka_bootstrap(settings),
                settings.kafka.events_topic,
            )
            for name in OnlineStore(client, settings.redis).namespaces()
        }
