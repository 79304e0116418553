"""Has the home know what serves, as Redis does."""

from pathlib import Path

import redis

from feature_store.contracts.errors import Unavailable
from feature_store.deployment_note import note
from feature_store.online.store import OnlineStore
from streaming.health import Health, Part

PART = Part("deployment in Redis", 0)


class DeploymentKeeper:
    """Notes in the home what Redis says of the deployment. A Redis that knows less than the home is in quarantine."""

    def __init__(self, home: Path, prefix: str, online: OnlineStore, health: Health) -> None:
        self._home = home
        self._prefix = prefix
        self._online = online
        self._health = health

    def step(self) -> None:
        """Looks once; while that fails, again and again after a while."""
        if not self._health.may_work(PART):
            return
        try:
            note(self._home, self._prefix, self._online.deployment.to_note())
        except (redis.RedisError, OSError) as error:
            self._health.failed(PART, Unavailable(f"What serves cannot be noted in the home: {error}."))
        except Exception as error:  # noqa: BLE001 - whatever it is, the lake is written
            self._health.failed(PART, error)
        else:
            self._health.worked(PART, progressed=True)
