"""Waiting until all that was logged is folded and in the lake."""

import time
from typing import NamedTuple

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.online.store import OnlineStore
from infra.connections import event_log, redis_client
from infra.settings import Settings
from streaming import sink

_SECONDS = 60.0
_POLL_SECONDS = 0.1


class Drained(NamedTuple):
    """How far everything has got."""

    log_id: str
    ends: list[int]  # per partition, the offset behind the last record


def drain(settings: Settings) -> Drained:
    """Marks the present end of the log with ticks, and waits until every namespace and the lake have reached them.

    Raises Unavailable, naming who is behind, after a minute of either.
    """
    log = event_log(settings)
    ends = sink.drain(log, settings.layout, SystemClock())
    deadline = time.monotonic() + _SECONDS
    with redis_client(settings) as client:
        state, online = BanditStore(client, settings.redis), OnlineStore(client, settings.redis)
        while True:
            behind = [
                f"namespace {name} of partition {partition} is at offset {position.offset if position else 0} of {end}"
                for name in online.deployment.namespaces()
                for partition, end in enumerate(ends)
                for position in [state.position(name, partition)]
                if position is None or position.offset < end
            ]
            if not behind:
                return Drained(log.log_id(), ends)
            if time.monotonic() > deadline:
                raise Unavailable(f"After {_SECONDS:.0f} s {'; '.join(behind)}. See the logs in {settings.home}.")
            time.sleep(_POLL_SECONDS)
