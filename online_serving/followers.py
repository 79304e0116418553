"""Threads that follow Redis, so that requests never have to ask it for parameters, catalogue or release.

They compute and hand over: what serves is replaced on the event loop, between two requests.
"""

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import redis

from feature_store.bandit_state import BanditStore, DeltaGap
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import MatchLoopError
from feature_store.online.changes import NO_CHANGES, Change, ChangeGap
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from online_serving import metrics
from online_serving.backoff import Backoff
from online_serving.parameters import Located, Parameters
from online_serving.quarantine import Quarantine
from online_serving.snapshot import Snapshot
from online_serving.state import FollowPoint, Loader, ServingState, with_live_catalogue

_log = logging.getLogger(__name__)

_BLOCK_MS = 500
_LOADING_BLOCK_MS = 20
_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 10.0
_RELOAD_SECONDS = 2.0
_MOST_RELOAD_SECONDS = 120.0
_STEADY_SECONDS = 300.0  # after so long without a reload the next one is the first again
_ROWS_AT_ONCE = 1 << 14  # added to the parameters between two requests: well below a millisecond each 10,000


class ParameterFollower:
    """Keeps the parameters of one namespace up to date: one thread per partition follows its deltas, for as long as
    they form a chain, and the prior is fitted anew when there are many more trials.

    The event loop only adds what was looked up, and assigns what was fitted.
    """

    def __init__(
        self,
        state: BanditStore,
        loaded: ServingState,
        loop: asyncio.AbstractEventLoop,
        broken: Callable[[Parameters], object],
        clock: Clock,
    ) -> None:
        """broken is called from a thread, which then ends, when deltas are missing or cannot be applied: what its
        partition adds up to can only be loaded anew. The other partitions go on."""
        self._state = state
        self._namespace = loaded.active.namespace
        self._parameters = loaded.parameters
        self._loop = loop
        self._broken = broken
        self._clock = clock
        self._sums = asyncio.Lock()  # held by whoever changes the sums over more than one step, or copies them
        self._refitting: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(partition, place), name=f"parameters-{partition}", daemon=True)
            for partition, place in enumerate(loaded.places)
        ]

    def start(self) -> None:
        """Starts following from where the state was loaded."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Has the threads end; they do within half a second. Called on the event loop."""
        self._stop.set()
        if self._refitting is not None:
            self._refitting.cancel()

    def join(self) -> None:
        """Waits for the threads to end. Not called on the event loop, which they may be waiting for."""
        for thread in self._threads:
            thread.join()

    def _run(self, partition: int, place: FollowPoint) -> None:
        while not self._stop.is_set():
            try:
                place = self._step(partition, place)
            except DeltaGap:
                _log.warning("deltas of partition %d of %s are missing: loading anew", partition, self._namespace)
                self._broken(self._parameters)
                return
            except redis.RedisError as error:
                _log.warning("parameters of partition %d wait for Redis: %s", partition, error)
                self._stop.wait(_RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - a thread that ends in silence would freeze its partition unnoticed
                if not self._stop.is_set():
                    _log.exception("a delta of partition %d of %s cannot be applied", partition, self._namespace)
                    self._broken(self._parameters)
                return

    def _step(self, partition: int, place: FollowPoint) -> FollowPoint:
        found = self._state.follow(self._namespace, partition, place.stream_id, place.position, _BLOCK_MS)
        for stream_id, delta in found:
            parts = [self._parameters.located(part) for part in delta.changes.parts(_ROWS_AT_ONCE)]
            applied = self._apply(partition, delta.position.offset, parts)
            asyncio.run_coroutine_threadsafe(applied, self._loop).result()
            place = FollowPoint(delta.position, stream_id)
            committed = int(stream_id.partition("-")[0]) / 1000  # a stream id begins with Redis's clock
            metrics.PROPAGATION.observe(max(0.0, time.time() - committed))
            metrics.PARAMETER_TIME.labels(str(partition)).set(committed)
            metrics.PARAMETER_OFFSET.labels(str(partition)).set(delta.position.offset)
        return place

    async def _apply(self, partition: int, offset: int, parts: list[Located]) -> None:
        async with self._sums:
            for part in parts[:-1]:
                self._parameters.add(part)
                await asyncio.sleep(0)  # requests go in between
            self._parameters.apply(partition, offset, parts[-1])
        idle = self._refitting is None or self._refitting.done()
        if idle and not self._stop.is_set() and self._parameters.refit_due(self._clock.now_ms()):
            self._refitting = self._loop.create_task(self._refit())

    async def _refit(self) -> None:
        try:
            async with self._sums:
                table = self._parameters.table(self._clock.now_ms())
                table = table._replace(total=table.total.copy())  # a live item that comes can bring trials with it
                table = await asyncio.to_thread(table.copy)
            with metrics.PRIOR_FIT.time():
                prior = await asyncio.to_thread(self._parameters.fitted, table)
            self._parameters.adopt(prior, table)
        except Exception:  # noqa: BLE001 - a task that fails in silence would leave the prior behind unnoticed
            _log.exception("the prior of %s could not be fitted", self._namespace)
            await asyncio.sleep(_RETRY_SECONDS)


class StateFollower(threading.Thread):
    """Follows the catalogue and the active release, and publishes a new state for each change of them.

    A release loads in the background while the present one goes on serving and changing; what changed in the catalogue
    meanwhile is applied before the swap. Parameters that missed deltas are replaced in the same way; a catalogue that
    missed changes is read anew.
    """

    def __init__(
        self,
        online: OnlineStore,
        load: Loader,
        quarantine: Quarantine,
        wanted: Callable[[], Active | None],
        publish: Callable[[ServingState], object],
        swap: Callable[[ServingState], object],
        complain: Callable[[str, bool], object],
    ) -> None:
        """wanted: what is to be served. publish, swap and complain are called from this thread: with a changed state,
        with another release's state, with the reason why no release is served yet, and whether that will change by
        itself."""
        super().__init__(name="state", daemon=True)
        self._online = online
        self._load = load
        self._quarantine = quarantine
        self._look_up = wanted
        self._publish = publish
        self._swap = swap
        self._complain = complain
        self._stop_asked = threading.Event()
        self._position: str | None = None  # of the last change that is followed; None: all of it is to be read anew
        self._state: ServingState | None = None
        self._wanted: Active | None = None
        self._broken: weakref.ref[Parameters] | None = None  # these missed deltas
        self._loading: Future[ServingState] | None = None
        self._changed_while_loading: set[str] = set()
        self._missed_while_loading = False  # changes, nobody knows which
        self._not_before = 0.0  # monotonic time of the next attempt to load
        self._loaded = float("-inf")  # monotonic time
        self._retries = Backoff(_RETRY_SECONDS, _MOST_RETRY_SECONDS)
        self._reloads = Backoff(_RELOAD_SECONDS, _MOST_RELOAD_SECONDS)

    def stop(self) -> None:
        """Has the thread end; it does within half a second, or when the release that it is loading is loaded."""
        self._stop_asked.set()

    def load_anew(self, parameters: Parameters) -> None:
        """Has the state loaded again if it still serves with these parameters. May be called from any thread."""
        if self._broken is None or self._broken() is not parameters:
            self._not_before = time.monotonic() + self._reloads.wait()
            self._broken = weakref.ref(parameters)

    def run(self) -> None:
        """The thread's work."""
        with ThreadPoolExecutor(1, thread_name_prefix="load") as background:
            while not self._stop_asked.is_set():
                try:
                    if self._position is None:
                        self._position = self._read_anew()
                    changes = self._online.changes.after(
                        self._position, _LOADING_BLOCK_MS if self._loading else _BLOCK_MS
                    )
                    self._follow(changes)
                    self._position = changes[-1].position if changes else self._position
                    self._advance_loading(background)
                    self._retries.reset()
                except ChangeGap:
                    if self._position != NO_CHANGES:
                        metrics.CATALOGUE_GAPS.inc()
                        _log.warning("changes of the catalogue after %s are lost: reading it anew", self._position)
                        self._stop_asked.wait(self._retries.wait())
                    self._position = None
                except redis.RedisError as error:
                    self._complain(f"Redis does not answer: {error}", True)
                    _log.warning("the catalogue waits for Redis: %s", error)
                    self._stop_asked.wait(self._retries.wait())
                except Exception:  # noqa: BLE001 - a thread that ends would freeze the catalogue unnoticed
                    _log.exception("a change of the catalogue could not be applied")
                    self._stop_asked.wait(self._retries.wait())

    def _read_anew(self) -> str:
        """Reads what is active and the whole catalogue; the position that they are from, at least."""
        position = self._online.changes.position()
        self._wanted = self._look_up()
        if self._wanted is None:
            self._complain("No release has been activated yet. Run `matchloop train`.", False)
        self._missed_while_loading = self._loading is not None
        if self._state is not None:
            self._publish_changed(with_live_catalogue(self._state.snapshot, self._online, self._quarantine))
        return position

    def _follow(self, changes: list[Change]) -> None:
        if any(change.kind == "active" for change in changes):
            self._wanted = self._look_up()
            self._not_before = 0.0
        items = {change.id for change in changes if change.kind == "item"}
        if self._loading:
            self._changed_while_loading |= items
        if self._state and items:
            self._publish_changed(self._with_items(self._state.snapshot, items))

    def _publish_changed(self, snapshot: Snapshot) -> None:
        assert self._state is not None
        metrics.ITEMS.set(snapshot.masks.count)
        self._state = self._state._replace(snapshot=snapshot)
        self._publish(self._state)

    def _with_items(self, snapshot: Snapshot, items: set[str]) -> Snapshot:
        names = sorted(items)
        return self._quarantine.changed(snapshot, zip(names, self._online.catalogue.get(names), strict=True))

    def _advance_loading(self, background: ThreadPoolExecutor) -> None:
        if self._loading is not None:
            if self._loading.done():
                self._finish_loading(self._loading)
            return
        state, broken = self._state, self._broken and self._broken()
        up_to_date = state is not None and state.active == self._wanted and state.parameters is not broken
        if self._wanted and not up_to_date and time.monotonic() >= self._not_before:
            _log.info("loading release %s with namespace %s", *self._wanted)
            self._complain(f"Release {self._wanted.release} is being loaded. Try again in a few seconds.", True)
            self._changed_while_loading.clear()
            self._missed_while_loading = False
            self._loading = background.submit(_uncollected, self._load, self._wanted)

    def _finish_loading(self, loading: "Future[ServingState]") -> None:
        self._loading = None
        try:
            state = loading.result()
            if self._missed_while_loading:
                snapshot = with_live_catalogue(state.snapshot, self._online, self._quarantine)
            else:
                snapshot = self._with_items(state.snapshot, self._changed_while_loading)
        except Exception as error:  # noqa: BLE001 - what serves goes on, whatever is wrong with the next release
            self._not_before = time.monotonic() + self._reloads.wait()
            metrics.SWAPS.labels("refused").inc()
            expected = isinstance(error, MatchLoopError | redis.RedisError | OSError)
            _log.error("%s cannot be served: %s", self._wanted, error, exc_info=None if expected else error)
            reason = str(error) if expected else f"{self._wanted} cannot be loaded ({error!r}), see the log of the API."
            self._complain(reason, False)
            return
        now = time.monotonic()
        if now - self._loaded > _STEADY_SECONDS:
            self._reloads.reset()
        self._loaded = now
        again = self._state is not None and self._state.active == state.active
        metrics.ITEMS.set(snapshot.masks.count)
        self._state = state._replace(snapshot=snapshot)
        metrics.SWAPS.labels("reloaded" if again else "swapped").inc()
        _log.info("serving release %s with namespace %s", *state.active)
        self._swap(self._state)


def _uncollected(load: Loader, wanted: Active) -> ServingState:
    """Loads without Python's collector of cycles, and keeps it from what was loaded: hundreds of thousands of objects
    set it off again and again, and it runs on whichever thread comes next, the event loop's as likely as not."""
    gc.disable()
    try:
        loaded = load(wanted)
        gc.freeze()
        return loaded
    finally:
        gc.enable()
