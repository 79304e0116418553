"""What serves, which namespaces are folded, and with which secret."""

from typing import Any, NamedTuple

import redis

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.deployment_note import DeploymentNote
from feature_store.online.changes import announce
from feature_store.online.keys import Keys

_PREVIOUS = "previous_"


class Active(NamedTuple):
    """What serves."""

    release: str
    namespace: str


class Shadowing(NamedTuple):
    """What answers a share of the requests unseen."""

    release: str
    namespace: str
    share: float  # in (0, 1]


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
        pipe = self._redis.pipeline(transaction=True)
        self._fold(pipe, namespace)
        pipe.execute()

    def namespaces(self) -> list[str]:
        """The namespaces being folded."""
        return sorted(name.decode() for name in self._redis.smembers(self._keys.namespaces))

    def retire(self, namespace: str) -> None:
        """Ends the folding of a namespace; its state stays until it is dropped."""
        seconds, _ = self._redis.time()
        pipe = self._redis.pipeline(transaction=True)
        pipe.srem(self._keys.namespaces, namespace)
        pipe.incr(self._keys.deployment_version)
        pipe.zadd(self._keys.retired, {namespace: seconds}, nx=True)
        pipe.execute()

    def retired(self) -> dict[str, int]:
        """The namespaces that are not folded any more and not forgotten yet, and for how many seconds."""
        now, _ = self._redis.time()
        found = self._redis.zrange(self._keys.retired, 0, -1, withscores=True)
        return {name.decode(): now - int(since) for name, since in found}

    def forget(self, namespace: str) -> None:
        """Forgets a retired namespace."""
        self._redis.zrem(self._keys.retired, namespace)

    def activate(self, active: Active) -> None:
        """Has every serving process swap to the release and namespace. Where that is another release, what served
        becomes the previous one."""

        def write(pipe: Any) -> None:
            fields = pipe.hgetall(self._keys.active)  # immediate while watching
            served, before = _active(fields, ""), _active(fields, _PREVIOUS)
            if served is not None and served.release != active.release:
                before = served
            pipe.multi()
            self._fold(pipe, active.namespace)
            pipe.hset(self._keys.active, mapping=active._asdict())
            if before is not None:
                pipe.hset(self._keys.active, mapping={_PREVIOUS + name: of for name, of in before._asdict().items()})
            announce(pipe, self._keys.changes, "active", "")

        self._redis.transaction(write, self._keys.active)

    def active(self) -> Active | None:
        """What serves, None before the first release."""
        return _active(self._redis.hgetall(self._keys.active), "")

    def previous(self) -> Active | None:
        """What served before the release that does, with its last namespace; None if nothing did."""
        return _active(self._redis.hgetall(self._keys.active), _PREVIOUS)

    def shadow(self, shadowing: Shadowing) -> None:
        """Has a release answer a share of the requests unseen, from a namespace that is folded from now on, instead of
        any other that does."""
        self.end_shadow()
        pipe = self._redis.pipeline(transaction=True)
        self._fold(pipe, shadowing.namespace)
        pipe.hset(self._keys.shadow, mapping={name: str(value) for name, value in shadowing._asdict().items()})
        pipe.execute()

    def shadowing(self) -> Shadowing | None:
        """What answers unseen, None if nothing does."""
        found = self._redis.hgetall(self._keys.shadow)
        if not found:
            return None
        release, namespace, share = (found[name.encode()].decode() for name in Shadowing._fields)
        return Shadowing(release, namespace, float(share))

    def end_shadow(self) -> None:
        """Nothing answers unseen any more. Its namespace is folded no longer, unless it serves or served before."""
        ended = self.shadowing()
        pipe = self._redis.pipeline(transaction=True)
        pipe.delete(self._keys.shadow)
        pipe.incr(self._keys.deployment_version)
        pipe.execute()
        serving = {one.namespace for one in (self.active(), self.previous()) if one is not None}
        if ended is not None and ended.namespace not in serving:
            self.retire(ended.namespace)

    def to_note(self) -> DeploymentNote:
        """All of it, and the experiments, as of one moment."""
        pipe = self._redis.pipeline(transaction=True)
        for key in (self._keys.deployment_version, self._keys.experiments_version):
            pipe.get(key)
        for key in (self._keys.active, self._keys.shadow, self._keys.experiments):
            pipe.hgetall(key)
        pipe.smembers(self._keys.namespaces)
        changes, experimented, active, shadow, experiments, namespaces = pipe.execute()
        return DeploymentNote(
            version=int(changes or 0) + int(experimented or 0),
            active=_decoded(active),
            namespaces=sorted(name.decode() for name in namespaces),
            shadow=_decoded(shadow),
            experiments=_decoded(experiments),
            experiments_version=int(experimented or 0),
        )

    def restore_folding(self, noted: DeploymentNote) -> None:
        """Has the noted namespaces folded."""
        for namespace in noted.namespaces:
            self.add_namespace(namespace)

    def restore(self, noted: DeploymentNote) -> None:
        """Has serve what was noted, with its experiments, and every serving process look."""
        pipe = self._redis.pipeline(transaction=True)
        for key, fields in (
            (self._keys.active, noted.active),
            (self._keys.shadow, noted.shadow),
            (self._keys.experiments, noted.experiments),
        ):
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
        pipe.set(self._keys.experiments_version, noted.experiments_version)
        pipe.set(self._keys.deployment_version, noted.version - noted.experiments_version + 1)
        announce(pipe, self._keys.changes, "active", "")
        pipe.execute()

    def _fold(self, pipe: Any, namespace: str) -> None:
        pipe.sadd(self._keys.namespaces, namespace)
        pipe.incr(self._keys.deployment_version)
        pipe.zrem(self._keys.retired, namespace)


def _decoded(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sorted(fields.items())}


def _active(fields: dict[bytes, bytes], prefix: str) -> Active | None:
    found = [fields.get(f"{prefix}{name}".encode()) for name in Active._fields]
    return Active(*(value.decode() for value in found if value is not None)) if all(found) else None
