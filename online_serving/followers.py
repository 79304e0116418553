"""Threads that follow Redis, so that requests never have to ask it for parameters, catalogue or release.

They compute and hand over: what serves is replaced on the event loop, between two requests.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import redis

from feature_store.bandit_state import BanditStore, Delta, Trimmed
from feature_store.contracts.errors import MatchLoopError
from feature_store.online import Active, Change, OnlineStore
from online_serving import metrics
from online_serving.parameters import Parameters
from online_serving.state import Loader, Place, State

_log = logging.getLogger(__name__)

_BLOCK_MS = 500
_LOADING_BLOCK_MS = 20
_RETRY_SECONDS = 0.5
_RELOAD_SECONDS = 5.0

OnLoop = Callable[[Callable[[], None]], object]  # has something done on the event loop, soon


class ParameterFollower:
    """One thread per partition that applies deltas to the parameters of one namespace, for as long as they form a
    chain."""

    def __init__(
        self, store: BanditStore, state: State, on_loop: OnLoop, broken: Callable[[Parameters], object]
    ) -> None:
        """broken is called from a thread, which then ends, when deltas are missing: what its partition adds up to can
        only be loaded anew. The other partitions go on."""
        self._store = store
        self._namespace = state.active.namespace
        self._parameters = state.parameters
        self._on_loop = on_loop
        self._broken = broken
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(partition, place), name=f"parameters-{partition}", daemon=True)
            for partition, place in enumerate(state.places)
        ]

    def start(self) -> None:
        """Starts following from where the state was loaded."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Has the threads end; they do within half a second."""
        self._stop.set()

    def join(self) -> None:
        """Waits for the threads to end."""
        for thread in self._threads:
            thread.join()

    def _run(self, partition: int, place: Place) -> None:
        while not self._stop.is_set():
            try:
                place = self._step(partition, place)
            except Trimmed:
                _log.warning("deltas of partition %d of %s are missing: loading anew", partition, self._namespace)
                self._broken(self._parameters)
                return
            except redis.RedisError as error:
                _log.warning("parameters of partition %d wait for Redis: %s", partition, error)
                self._stop.wait(_RETRY_SECONDS)

    def _step(self, partition: int, place: Place) -> Place:
        found = self._store.follow(self._namespace, partition, place.stream_id, place.position, _BLOCK_MS)
        for stream_id, delta in found:
            self._on_loop(partial(self._apply, partition, stream_id, delta))
            place = Place(delta.position, stream_id)
        return place

    def _apply(self, partition: int, stream_id: str, delta: Delta) -> None:
        self._parameters.apply(partition, delta.position.offset, delta.changes)
        committed = int(stream_id.partition("-")[0]) / 1000  # a stream id begins with Redis's clock
        metrics.PROPAGATION.observe(max(0.0, time.time() - committed))
        metrics.PARAMETER_TIME.labels(str(partition)).set(committed)
        metrics.PARAMETER_OFFSET.labels(str(partition)).set(delta.position.offset)


class StateFollower(threading.Thread):
    """Follows the catalogue and the active release, and publishes a new state for each change of them.

    A release loads in the background while the present one goes on serving and changing; what changed in the catalogue
    meanwhile is applied before the swap. Parameters that missed deltas are replaced in the same way.
    """

    def __init__(
        self,
        store: OnlineStore,
        load: Loader,
        publish: Callable[[State], object],
        swap: Callable[[State], object],
        complain: Callable[[str], object],
    ) -> None:
        """publish, swap and complain are called from this thread: with a changed state, with another release's state,
        with the reason why a release cannot be served."""
        super().__init__(name="state", daemon=True)
        self._store = store
        self._load = load
        self._publish = publish
        self._swap = swap
        self._complain = complain
        self.settled = threading.Event()  # what was active at the start is served, or cannot be
        self._stop_asked = threading.Event()
        self._state: State | None = None
        self._wanted: Active | None = None
        self._broken: weakref.ref[Parameters] | None = None  # these missed deltas
        self._loading: Future[State] | None = None
        self._changed_while_loading: set[str] = set()
        self._not_before = 0.0  # monotonic time of the next attempt to load

    def stop(self) -> None:
        """Has the thread end; it does within half a second, or when the release that it is loading is loaded."""
        self._stop_asked.set()

    def load_anew(self, parameters: Parameters) -> None:
        """Has the state loaded again if it still serves with these parameters. May be called from any thread."""
        self._broken = weakref.ref(parameters)

    def run(self) -> None:
        """The thread's work."""
        position: str | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="load") as background:
            while not self._stop_asked.is_set():
                try:
                    if position is None:
                        first = self._store.changes_position()
                        self._wanted = self._store.active()
                        position = first
                    changes = self._store.changes(position, _LOADING_BLOCK_MS if self._loading else _BLOCK_MS)
                    self._follow(changes)
                    position = changes[-1].position if changes else position
                    self._advance_loading(background)
                    if self._loading is None:
                        self.settled.set()
                except redis.RedisError as error:
                    self.settled.set()
                    _log.warning("the catalogue waits for Redis: %s", error)
                    self._stop_asked.wait(_RETRY_SECONDS)
                except Exception:  # noqa: BLE001 - a thread that ends would freeze the catalogue unnoticed
                    _log.exception("a change of the catalogue could not be applied")
                    self._stop_asked.wait(_RETRY_SECONDS)

    def _follow(self, changes: list[Change]) -> None:
        if any(change.kind == "active" for change in changes):
            self._wanted = self._store.active()
            self._not_before = 0.0
        items = {change.id for change in changes if change.kind == "item"}
        if self._loading:
            self._changed_while_loading |= items
        if self._state and items:
            self._state = self._with_items(self._state, items)
            self._publish(self._state)

    def _with_items(self, state: State, items: set[str]) -> State:
        changes = [(item, self._store.get_item(item)) for item in sorted(items)]
        snapshot = state.snapshot.with_items(changes)
        metrics.ITEMS.set(int(snapshot.available.sum()))
        return state._replace(snapshot=snapshot)

    def _advance_loading(self, background: ThreadPoolExecutor) -> None:
        if self._loading is not None:
            if self._loading.done():
                self._finish_loading(self._loading)
            return
        state, broken = self._state, self._broken and self._broken()
        up_to_date = state is not None and state.active == self._wanted and state.parameters is not broken
        if self._wanted and not up_to_date and time.monotonic() >= self._not_before:
            _log.info("loading release %s with namespace %s", *self._wanted)
            self._changed_while_loading.clear()
            self._loading = background.submit(self._load, self._wanted)

    def _finish_loading(self, loading: "Future[State]") -> None:
        self._loading = None
        try:
            state = self._with_items(loading.result(), self._changed_while_loading)
        except (MatchLoopError, redis.RedisError, OSError) as error:
            self._not_before = time.monotonic() + _RELOAD_SECONDS
            metrics.SWAPS.labels("refused").inc()
            _log.error("%s cannot be served: %s", self._wanted, error)
            self._complain(str(error))
            return
        again = self._state is not None and self._state.active == state.active
        self._state = state
        metrics.SWAPS.labels("reloaded" if again else "swapped").inc()
        _log.info("serving release %s with namespace %s", *state.active)
        self._swap(state)
