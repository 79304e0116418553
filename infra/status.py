"""What an installation is doing: `matchloop status`."""

import contextlib
from typing import Any

import msgspec
import redis

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import MatchLoopError
from feature_store.online.memory import memory
from infra.connections import unchecked_redis_client
from infra.schedule.notes import Notes, load, schedule_folder
from infra.settings import Settings
from infra.stack import Stack


def running(stack: Stack) -> dict[str, Any]:
    """What of a stack runs, and where it answers."""
    return {
        "running": stack.running,
        "endpoints": {name: place and without_passwords(place) for name, place in stack.endpoints._asdict().items()},
        "programs": [{**program._asdict(), "healthy": program.healthy} for program in stack.status()],
    }


def status(settings: Settings) -> dict[str, Any]:
    """What runs, what takes Redis' memory, and of a schedule the last retrain and the next."""
    stack = Stack(settings)
    return running(stack) | {"schedule": schedule(settings), "memory": _memory(stack.settings)}


def _memory(settings: Settings) -> dict[str, Any] | None:
    """What takes Redis' memory, None if it does not answer."""
    try:
        with contextlib.closing(unchecked_redis_client(settings, retries=0)) as client:
            found = memory(client, settings.redis.prefix)
    except (MatchLoopError, redis.RedisError, OSError):
        return None
    return found._asdict() | {"kinds": [kind._asdict() for kind in found.kinds]}


def schedule(settings: Settings) -> dict[str, Any] | None:
    """What the schedule has noted, None if there never was one."""
    notes = load(schedule_folder(settings.home))
    return None if notes == Notes() else msgspec.to_builtins(notes)
