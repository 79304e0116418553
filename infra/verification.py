"""The law held against a running installation: every namespace's state, and its base plus a replay of the log."""

import redis

from feature_store.bandit_state import BanditStore
from feature_store.namespace import Namespace
from feature_store.online.store import OnlineStore
from feature_store.rewriting import reading
from infra.connections import event_log
from infra.settings import Settings
from streaming.log_reader import LogReader
from streaming.replay import ReplayCheck, compare


def verify(settings: Settings, client: redis.Redis) -> dict[str, list[ReplayCheck]]:
    """By namespace that is folded, how each partition's stored state compares with its replay."""
    home, state = settings.layout, BanditStore(client, settings.redis)
    with reading(settings.layout):
        return {
            name: compare(
                Namespace.load(home.namespaces, name),
                state,
                LogReader(home.lake, event_log(settings)),
                settings.rewards,
            )
            for name in OnlineStore(client, settings.redis).deployment.namespaces()
        }
