"""What the server of the online store has to be like, as far as it tells."""

import redis

from feature_store.contracts.errors import InvalidInput

_OLDEST = (6, 2)  # ZADD GT
_KEEPS = "noeviction"


def check_server(client: redis.Redis) -> list[str]:
    """What is amiss with the server, each a sentence; nothing if it may not be asked. Raises InvalidInput if it is too
    old, or evicts: what it evicts would count as never learnt. Raises redis.RedisError if it does not answer."""
    try:
        info = client.info()
    except redis.exceptions.NoPermissionError:
        return []
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise InvalidInput(
            f"The online store is Redis {version}. Use {'.'.join(map(str, _OLDEST))} or newer, or Valkey."
        )
    policy = info.get("maxmemory_policy", _KEEPS)
    if policy != _KEEPS and info.get("maxmemory"):
        raise InvalidInput(
            f"The online store evicts keys when it is full (maxmemory-policy {policy}): what was learnt would be lost "
            f"piece by piece, unseen. Set maxmemory-policy {_KEEPS}, in redis.conf or your provider's parameters."
        )
    lost = "Redis keeps no append-only file: after a restart it knows less than was learnt"
    return [] if info.get("aof_enabled") else [f"{lost}. Set appendonly yes, or expect to run `matchloop recover`."]
