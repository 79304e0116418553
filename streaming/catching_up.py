"""Waiting for those who follow the log, for as long as they move."""

import time
from collections.abc import Callable

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.errors import Unavailable
from feature_store.namespace import Namespace

PATIENCE_SECONDS = 60.0  # without a step ahead
_POLL_SECONDS = 0.1

Reached = Callable[[int, Position], bool]  # whether a partition that stands there need not go further


def await_folded(
    namespace: Namespace, state: BanditStore, reached: Reached, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """Waits until every partition of the namespace has reached its place. However far that is, it may take as long as
    it goes ahead. Raises Unavailable, naming who is behind, when nothing has moved for `patience_seconds`."""

    def standing() -> list[Position]:
        begins = [Position(namespace.log, offset) for offset in namespace.offsets]
        return [state.position(namespace.id, partition) or start for partition, start in enumerate(begins)]

    before = standing()
    deadline = time.monotonic() + patience_seconds
    while behind := [f"{p} at {place}" for p, place in enumerate(before) if not reached(p, place)]:
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Namespace {namespace.id} is not folded up to the present: partition {', '.join(behind)}, and nothing "
                f"has moved for {patience_seconds:.0f} s. Is an updater running? `matchloop status` says."
            )
        time.sleep(_POLL_SECONDS)
        if (now := standing()) != before:
            before, deadline = now, time.monotonic() + patience_seconds
