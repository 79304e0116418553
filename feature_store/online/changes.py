"""The stream of what changed in the catalogue or in what serves, for the processes that follow it."""

from typing import Any, NamedTuple

import redis

from feature_store.batches import BATCH
from feature_store.online.keys import Keys

NO_CHANGES = "0-0"  # where a stream stands that is empty
CHANGES_KEPT = 100_000


class Change(NamedTuple):
    """Something that every serving process must follow."""

    position: str
    kind: str  # item, active; anything else is to be passed over
    id: str  # the item's; empty for active


class ChangeGap(Exception):
    """Changes after the position may be lost: what they changed must be read anew."""


class OnlineChanges:
    """The changes, for code that may block."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._stream = Keys(prefix).changes

    def position(self) -> str:
        """Where to follow changes from, taken before reading what they change."""
        last = self._redis.xrevrange(self._stream, count=1)
        return last[0][0].decode() if last else NO_CHANGES

    def after(self, position: str, block_ms: int) -> list[Change]:
        """Changes after the position, waiting up to block_ms for the first one.

        Raises ChangeGap if the entry at the position is gone: so may be those after it, by the stream's cap, or because
        the server went back to an older state. The first changes of all follow NO_CHANGES, and raise it too.
        """
        answer = self._redis.xread({self._stream: position}, count=BATCH, block=block_ms)
        changes = [_change(*entry) for _, entries in answer or [] for entry in entries]
        if changes and not self._redis.xrange(self._stream, position, position, count=1):
            raise ChangeGap
        return changes


def announce(pipe: Any, stream: str, kind: str, identity: str) -> None:
    """Has a pipeline add a change to the stream."""
    pipe.xadd(stream, {"kind": kind, "id": identity}, maxlen=CHANGES_KEPT, approximate=True)


def _change(position: bytes, fields: dict[bytes, bytes]) -> Change:
    kind, identity = (fields.get(name, b"").decode(errors="replace") for name in (b"kind", b"id"))
    return Change(position.decode(), kind, identity)
