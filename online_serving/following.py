"""All that a serving process follows in Redis: the release that serves, the experiments, and their releases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from feature_store.contracts.clock import Clock
from feature_store.contracts.identity import Keyring
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from online_serving import metrics
from online_serving.config import ServerConfig
from online_serving.experiments import ExperimentFollower, Treated
from online_serving.pipeline.pipeline import Pipeline
from online_serving.serving_followers import ServingFollowers, blocking_client
from online_serving.state import Current

_EXPERIMENT_CONNECTIONS = 2  # the follower's own, and that of whoever has it look at once


class Following:
    """What requests are answered from, kept up to date while it runs."""

    def __init__(self, config: ServerConfig, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        pipeline, keyring = Pipeline(config.serving, config.bandit, metrics.Stage), Keyring(config.secret)

        def check(online: OnlineStore) -> None:
            online.deployment.check_secret(keyring)

        def check_and_look(online: OnlineStore) -> None:
            check(online)
            self._experiments.look()  # so that the first request meets them

        def pin(active: Active) -> ServingFollowers:
            return ServingFollowers(config, pipeline, clock, loop, check, active)

        self._served = ServingFollowers(config, pipeline, clock, loop, check_and_look)
        self.treated = Treated(self._served.current)
        self._client = blocking_client(config, _EXPERIMENT_CONNECTIONS)
        online = OnlineStore(self._client, config.redis)
        self._experiments = ExperimentFollower(config, online, self.treated, loop, metrics.Stage, pin)

    @property
    def current(self) -> Current:
        """What serves."""
        return self._served.current

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows until the block ends."""
        followers = self._served, self._experiments
        for one in followers:
            one.start()
        try:
            yield
        finally:
            for one in followers:
                one.stop()
            for one in followers:
                await asyncio.to_thread(one.join)
            self._client.close()
