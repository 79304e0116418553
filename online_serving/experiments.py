"""The experiments as a serving process follows them: from Redis to a table of treatments, within seconds."""

import asyncio
import logging
import threading
from collections.abc import Callable

import redis

from feature_store.contracts.errors import InvalidInput, MatchLoopError, Unavailable
from feature_store.contracts.experiments import Experiment
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from online_serving import metrics
from online_serving.config import ServerConfig
from online_serving.pipeline.pipeline import Stage
from online_serving.serving_followers import ServingFollowers, on_loop
from online_serving.state import Current
from online_serving.treatments import Treatment, Treatments

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0

Pin = Callable[[Active], ServingFollowers]


class Treated:
    """What requests are answered with at this moment. Read and replaced on the event loop only."""

    def __init__(self, current: Current) -> None:
        """current: what serves."""
        self._current = current
        self._treatments: Treatments | None = None
        self._pinned: dict[str, Current] = {}

    def of(self, user: str) -> tuple[Treatment, Current]:
        """How a user key is treated, and what it is answered from. Raises Unavailable before it is known which
        experiments run."""
        if self._treatments is None:
            raise Unavailable(self._current.problem)
        treatment = self._treatments.of(user)
        return treatment, self._current if treatment.release is None else self._pinned[treatment.release]

    def publish(self, treatments: Treatments, pinned: dict[str, Current]) -> None:
        """Has every request from now on treated so. pinned: by release, of all that a treatment answers with."""
        self._treatments, self._pinned = treatments, pinned


class ExperimentFollower(threading.Thread):
    """Looks whether the experiments have changed, and has requests treated accordingly.

    An experiment with releases of its own begins in a process when these are loaded there: until then its users are in
    no experiment, whichever variant is theirs. One that cannot be run (a release is gone, or two that do not go
    together) runs nowhere, and the metric matchloop_experiments_refused says so.
    """

    def __init__(
        self,
        config: ServerConfig,
        online: OnlineStore,
        treated: Treated,
        loop: asyncio.AbstractEventLoop,
        stage: Stage,
        pin: Pin,
    ) -> None:
        """pin: makes what follows a release, not started."""
        super().__init__(name="experiments", daemon=True)
        self._config, self._online, self._treated, self._loop = config, online, treated, loop
        self._stage, self._pin = stage, pin
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()
        self._version: int | None = None
        self._experiments: list[Experiment] = []
        self._pinned: dict[str, ServingFollowers] = {}
        self._published: list[str] | None = None

    def run(self) -> None:
        """The thread's work."""
        while not self._stop_asked.wait(_LOOK_SECONDS):
            try:
                self.look()
            except redis.RedisError as error:
                _log.warning("the experiments wait for Redis: %s", error)
            except Exception:  # noqa: BLE001 - a thread that ends would freeze the experiments unnoticed
                _log.exception("the experiments could not be followed")

    def look(self) -> None:
        """Reads the experiments if they have changed. From any thread; raises redis.RedisError."""
        with self._lock:
            version = self._online.experiments.version()
            if version != self._version:
                self._read()
                self._version = version
            self._publish()

    def stop(self) -> None:
        """Has the thread end, and those of the releases that it follows."""
        self._stop_asked.set()

    def join(self, timeout: float | None = None) -> None:
        """Waits for them. Not called on the event loop."""
        super().join(timeout)
        for followers in self._pinned.values():
            on_loop(self._loop, followers.stop)
            followers.join()

    def _read(self) -> None:
        try:
            found = self._online.experiments.read()
        except InvalidInput as error:  # a process that begins now begins without any
            _log.error("the experiments stay as they were: %s", error)
            return
        self._experiments, self._published = found.running, None
        self._follow_releases()

    def _follow_releases(self) -> None:
        wanted = {
            release: Active(release, namespace)
            for one in self._experiments
            for release, namespace in one.namespaces.items()
        }
        for release in self._pinned.keys() - wanted.keys():
            followers = self._pinned.pop(release)
            on_loop(self._loop, followers.stop)
            threading.Thread(target=followers.join, name="release-ends", daemon=True).start()
        for release in wanted.keys() - self._pinned.keys():
            self._pinned[release] = self._pin(wanted[release])
            self._pinned[release].start()

    def _publish(self) -> None:
        """What can be run of the experiments, if that is not what is run already."""
        loaded = {name: one.current for name, one in self._pinned.items() if one.current.serving.is_set()}
        ready = [one for one in self._experiments if loaded.keys() >= one.namespaces.keys()]
        names = sorted(one.name for one in ready)
        if names == self._published:
            return
        running = self._together(ready)
        treatments = Treatments(running, self._config.serving, self._config.bandit, self._stage)
        _log.info("experiments: %s", ", ".join(one.name for one in running) or "none")
        on_loop(self._loop, lambda: self._treated.publish(treatments, loaded))
        self._published = names
        metrics.EXPERIMENTS.set(len(running))
        metrics.EXPERIMENTS_REFUSED.set(len(ready) - len(running))

    def _together(self, ready: list[Experiment]) -> list[Experiment]:
        """Those that can run with each other and with the settings of this process, the older first."""
        running: list[Experiment] = []
        for one in sorted(ready, key=lambda one: (one.started or 0, one.name)):
            try:
                Treatments([*running, one], self._config.serving, self._config.bandit, self._stage)
            except MatchLoopError as error:
                _log.error("experiment %s does not run: %s", one.name, error)
                continue
            running.append(one)
        return running
