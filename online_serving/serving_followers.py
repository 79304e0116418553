"""Everything that keeps one release up to date in memory: its state, its parameters, its catalogue."""

import asyncio
import contextlib
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import Clock
from feature_store.online import connection
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from online_serving.config import ServerConfig
from online_serving.followers import ParameterFollower, StateFollower
from online_serving.pipeline.pipeline import Pipeline
from online_serving.quarantine import Quarantine
from online_serving.state import Current, ServingState, loader

_REDIS_SECONDS = 5.0


def blocking_client(config: ServerConfig, connections: int) -> redis.Redis:
    """A client of the online store for threads, of which so many may wait for it at once."""
    return connection.blocking_client(
        config.redis_url, connections=connections, retry=Retry(NoBackoff(), 1), socket_timeout=_REDIS_SECONDS
    )


class ServingFollowers:
    """Follows one release, and publishes its states in `current`, on the event loop."""

    def __init__(
        self,
        config: ServerConfig,
        pipeline: Pipeline,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        before: Callable[[OnlineStore], None],
        pinned: Active | None = None,
    ) -> None:
        """before: called before each load, from a thread; what it raises counts as raised by the load. pinned: what to
        follow; None: whatever serves."""
        # Followers of the last release and of the next one, a thread per partition each, and what loads and watches.
        self._client = blocking_client(config, 2 * config.kafka.partitions + 4)
        online, state = OnlineStore(self._client, config.redis), BanditStore(self._client, config.redis)
        self.current = Current()
        self._loop, self._state, self._clock = loop, state, clock
        self._parameters: list[ParameterFollower] = []
        self._stopped = False
        quarantine = Quarantine()
        read = loader(config.home, config.kafka.partitions, online, state, pipeline, quarantine, clock)

        def load(active: Active) -> ServingState:
            before(online)
            return read(active)

        self._follower = StateFollower(
            online,
            load,
            quarantine,
            wanted=online.deployment.active if pinned is None else lambda: pinned,
            publish=lambda changed: on_loop(loop, lambda: self.current.publish(changed)),
            swap=lambda loaded: on_loop(loop, lambda: self._swap(loaded)),
            complain=lambda problem, loading: on_loop(loop, lambda: self.current.complain(problem, loading)),
        )

    def start(self) -> None:
        """Begins to follow."""
        self._follower.start()

    def stop(self) -> None:
        """Has the threads end. Called on the event loop."""
        self._stopped = True
        self._follower.stop()
        for followers in self._parameters:
            followers.stop()

    def join(self) -> None:
        """Waits for the threads to end. Not called on the event loop, which they may be waiting for."""
        self._follower.join()
        for followers in self._parameters:
            followers.join()
        self._client.close()

    def _swap(self, loaded: ServingState) -> None:
        if self._stopped:
            return
        for old in self._parameters:
            old.stop()
        self.current.publish(loaded)
        following = ParameterFollower(self._state, loaded, self._loop, self._follower.load_anew, self._clock)
        self._parameters[:] = [following]
        following.start()


def on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Has the event loop call it, if it still runs. From a thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is served any more
        loop.call_soon_threadsafe(call)
