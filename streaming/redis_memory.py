"""How full Redis is, for alerts."""

import time
from collections.abc import Callable

import redis
from prometheus_client import Gauge

USED = Gauge("matchloop_redis_memory_bytes", "Memory that Redis uses, for everybody's keys")
LIMIT = Gauge("matchloop_redis_memory_limit_bytes", "Memory that Redis may use, 0: no limit")

_EVERY_SECONDS = 15.0


class RedisMemory:
    """Looks now and then."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._client = client
        self._clock = clock
        self._due = clock()

    def step(self) -> None:
        """Sets the gauges, if it is time and Redis answers."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + _EVERY_SECONDS
        try:
            info = self._client.info("memory")
        except (redis.RedisError, OSError):
            return  # what depends on it says so
        USED.set(info["used_memory"])
        LIMIT.set(info["maxmemory"])
