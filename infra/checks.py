"""One thing that `matchloop doctor` looks at: what it found and, if that will not do, what to do."""

import subprocess
from collections.abc import Callable
from typing import NamedTuple

import redis

from feature_store.contracts.errors import MatchLoopError


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str  # empty if ok


def attempt(name: str, look: Callable[[], str], remedy: str) -> Check:
    """What looking finds; not ok, with the remedy, if it fails."""
    try:
        return Check(name, True, look(), "")
    except (
        MatchLoopError,
        OSError,
        ValueError,
        IndexError,
        RuntimeError,
        redis.RedisError,
        subprocess.SubprocessError,
    ) as error:
        return Check(name, False, str(error), remedy)
