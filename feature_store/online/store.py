"""What MatchLoop keeps in Redis beside the bandit's state, by role. All writes are idempotent. The keys: keys.py.

OnlineStore is for jobs and follower threads, AsyncOnlineStore for the API's event loop.
"""

import redis
import redis.asyncio

from feature_store.online.catalogue import AsyncOnlineCatalogue, OnlineCatalogue
from feature_store.online.changes import OnlineChanges
from feature_store.online.deployment import OnlineDeployment
from feature_store.online.experiments import OnlineExperiments
from feature_store.online.users import AsyncOnlineUsers, OnlineUsers
from feature_store.settings import RedisSettings
from feature_store.shared_connection import SharedConnection
from feature_store.turns import Turns

_USER_SECONDS = 1.0  # for what a recommendation asks; without an answer it goes on
_WRITE_CALLS, _WRITE_SECONDS = 16, 5.0  # for what clients write or read of the catalogue and of users
ASYNC_CONNECTIONS = _WRITE_CALLS + 3  # one that recommendations share, two for pings


class OnlineStore:
    """The store for code that may block."""

    def __init__(self, client: redis.Redis, settings: RedisSettings) -> None:
        self.users = OnlineUsers(client, settings)
        self.catalogue = OnlineCatalogue(client, settings.prefix)
        self.deployment = OnlineDeployment(client, settings.prefix)
        self.changes = OnlineChanges(client, settings.prefix)
        self.experiments = OnlineExperiments(client, settings.prefix)


class AsyncOnlineStore:
    """The store for the event loop. Every method raises redis.RedisError or OSError if the server does not answer in
    time; many calls at once wait for their turn, and that is no failure."""

    def __init__(self, client: redis.asyncio.Redis, settings: RedisSettings) -> None:
        """The client should have ASYNC_CONNECTIONS."""
        self._redis = client
        writes = Turns(_WRITE_CALLS, _WRITE_SECONDS)
        shared = SharedConnection(client.connection_pool, _USER_SECONDS)
        self.users = AsyncOnlineUsers(client, settings, shared, writes)
        self.catalogue = AsyncOnlineCatalogue(client, settings.prefix, writes)

    async def ping(self) -> None:
        """Raises redis.RedisError if the server does not answer."""
        await self._redis.execute_command("PING")
