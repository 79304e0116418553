"""What serves, which namespaces are folded, and with which secret."""

from typing import NamedTuple

import redis

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.online.changes import announce
from feature_store.online.keys import Keys


class Active(NamedTuple):
    """What serves."""

    release: str
    namespace: str


class OnlineDeployment:
    """The deployment, for code that may block."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._prefix = prefix
        self._keys = Keys(prefix)

    def check_secret(self, keyring: Keyring) -> None:
        """Raises InvalidInput if the store was first used with another secret. If it was not used yet, it is now."""
        self._redis.set(self._keys.secret, keyring.fingerprint, nx=True)
        if self._redis.get(self._keys.secret) != keyring.fingerprint.encode():
            raise InvalidInput(
                f"Redis (redis.prefix {self._prefix!r}) was first used with another secret: with this one, "
                "every user would be a stranger, and feedback on earlier decisions refused. Set MATCHLOOP_SECRET, or "
                "the file `secret` in the home directory, to what it was, the same on every host. To begin anew with "
                "this one, set another redis.prefix or use an empty database."
            )

    def add_namespace(self, namespace: str) -> None:
        """Has a namespace folded from now on."""
        self._redis.sadd(self._keys.namespaces, namespace)

    def namespaces(self) -> list[str]:
        """The namespaces being folded."""
        return sorted(name.decode() for name in self._redis.smembers(self._keys.namespaces))

    def retire(self, namespace: str) -> None:
        """Ends the folding of a namespace; its state stays until it is dropped."""
        self._redis.srem(self._keys.namespaces, namespace)

    def activate(self, active: Active) -> None:
        """Has every serving process swap to the release and namespace."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.sadd(self._keys.namespaces, active.namespace)
        pipe.hset(self._keys.active, mapping=active._asdict())
        announce(pipe, self._keys.changes, "active", "")
        pipe.execute()

    def active(self) -> Active | None:
        """What serves, None before the first release."""
        fields = self._redis.hgetall(self._keys.active)
        return Active(fields[b"release"].decode(), fields[b"namespace"].decode()) if fields else None
