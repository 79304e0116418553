"""What takes the memory of the store, by kind."""

import re
from typing import NamedTuple

import redis

from feature_store.batches import BATCH

_SAMPLE = 5_000  # keys that are looked at; a scan meets them in no particular order
_USER = re.compile(r"^user:\{[^}]*\}:(\w+)$")
_STATE = re.compile(r"^\{\d+\}:(.+):(meta|snapshot|deltas|open)$")


class Kind(NamedTuple):
    """Keys of one kind."""

    kind: str  # users' profile, say, or the state of a namespace
    keys: int
    bytes: int


class Memory(NamedTuple):
    """What the keys of an installation take, and what its server takes for everybody's. estimated: there are so many
    keys that only some were looked at."""

    kinds: list[Kind]  # the largest first
    estimated: bool
    used: int  # bytes
    limit: int  # bytes, 0: none


def memory(client: redis.Redis, prefix: str) -> Memory:
    """Looks at a few thousand keys; more are estimated from these."""
    sampled, all_keys, cursor = list[str](), int(client.dbsize()), 0
    while True:
        cursor, found = client.scan(cursor, count=BATCH)
        sampled += [key.decode(errors="replace") for key in found]
        if not cursor or len(sampled) >= _SAMPLE:
            break
    share = len(sampled) / max(all_keys, 1) if cursor else 1.0
    ours = [key for key in sampled if key.startswith(f"{prefix}:")]
    pipe = client.pipeline(transaction=False)
    for key in ours:
        pipe.memory_usage(key)
    sizes: dict[str, tuple[int, int]] = {}
    for key, size in zip(ours, pipe.execute(), strict=True):
        kind = _kind(key.removeprefix(f"{prefix}:"))
        count, total = sizes.get(kind, (0, 0))
        sizes[kind] = count + 1, total + (size or 0)
    kinds = [Kind(kind, round(count / share), round(total / share)) for kind, (count, total) in sizes.items()]
    info = client.info("memory")
    return Memory(
        sorted(kinds, key=lambda kind: -kind.bytes), bool(cursor), int(info["used_memory"]), int(info["maxmemory"])
    )


def _kind(key: str) -> str:
    if found := _USER.match(key):
        return f"users: {found[1]}"
    if found := _STATE.match(key):
        return f"state of {found[1]}"
    return key.partition(":")[0]
