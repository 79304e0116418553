"""Who shares the partitions: the updaters that are alive, and which partitions each of them works on.

    <prefix>:updaters  sorted set: member -> when its session ends, ms of Redis's clock

A member renews its session from a thread of its own; one that was silent for a session is left out, and the others
work on its partitions. This says only who works on what. If two members both believe they own one partition, for a
moment or because one was paused, it costs time and nothing else: the fenced commit of bandit_state.py lets one of
them through.
"""

import logging
import secrets
from types import TracebackType
from typing import Any, Self

import redis

from feature_store.renewal import Renewal
from feature_store.settings import RedisSettings

_log = logging.getLogger(__name__)

_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


class Membership:
    """One member. A context manager: a member from its beginning, none any more after its end."""

    def __init__(self, client: redis.Redis, settings: RedisSettings, session_seconds: float) -> None:
        self._redis: Any = client  # its type information has the answers of scripts wrong
        self._key = f"{settings.prefix}:updaters"
        self._session = session_seconds
        self._member = secrets.token_hex(8)
        self._members: list[str] = []
        # While the store does not answer, nobody can commit either: who works on what stays as it is.
        self._renewal = Renewal("membership", session_seconds, self._renew)

    def __enter__(self) -> Self:
        """Joins. Raises redis.RedisError if the store does not answer."""
        self._renew()
        self._renewal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves: the others need not wait for the end of the session."""
        self._renewal.stop()
        try:
            self._redis.zrem(self._key, self._member)
        except redis.RedisError as unanswered:
            _log.warning("could not deregister: %s", unanswered)

    def partitions(self, count: int) -> list[int]:
        """Those of `count` partitions that this member works on: of n members, the i-th has partitions i, i + n, ..."""
        members = self._members
        return list(range(members.index(self._member), count, len(members)))

    def _renew(self) -> bool:
        found = self._redis.eval(_RENEW, 1, self._key, self._member, int(self._session * 1000))
        self._members = sorted(member.decode() for member in found)
        return True
