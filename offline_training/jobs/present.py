"""Before a lake is trusted: is it, and what serves, as far as the log is?"""

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online.store import OnlineStore
from streaming.catching_up import PATIENCE_SECONDS, await_folded
from streaming.kafka import Log
from streaming.sink import drain


def await_present(
    log: Log,
    home: Home,
    online: OnlineStore,
    state: BanditStore,
    clock: Clock,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Waits until the lake holds the log up to now, and the namespace that serves has been folded as far. Does nothing
    while nothing serves: then nothing is lost by what a first training does not read.

    Raises Unavailable if the sink or the updater is dead or far behind: models would be trained without what came last,
    and what an updater does not fold cannot be activated.
    """
    active = online.deployment.active()
    if active is None:
        return
    try:
        ends, log_id = drain(log, home, clock, patience_seconds), log.log_id()

        def reached(partition: int, place: Position) -> bool:
            return place.log == log_id and place.offset >= ends[partition]

        namespace = Namespace.load(home.namespaces, active.namespace)
        if len(namespace.offsets) == len(ends):  # else no updater can fold it, and a retrain is the remedy
            await_folded(namespace, state, reached, patience_seconds)
    except Unavailable as error:
        raise Unavailable(
            f"Nothing is trained, because what came last is missing: {error} `--stale` trains on what is there."
        ) from error
