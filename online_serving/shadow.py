"""A release that answers some of the requests unseen: its slates are noted beside what was shown, and never in the log.

A thread answers them, behind the answer that was given, with the same user and the same rules, and from a namespace
that is folded like the one that serves. It takes no more than `serving.shadow_cpu` of a core, loading included: what it
has no time for is passed over.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import Clock
from feature_store.contracts.columns import SHADOW
from feature_store.contracts.errors import MatchLoopError
from feature_store.lake_format import write
from feature_store.online.deployment import Active, Shadowing
from feature_store.online.store import OnlineStore
from feature_store.user_features import UserFeatures
from online_serving import metrics
from online_serving.config import ServerConfig
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Recommendation, Request
from online_serving.quarantine import Quarantine
from online_serving.state import ServingState, loader

_log = logging.getLogger(__name__)

_WAITING = 64  # requests; more are passed over
_LOOK_SECONDS = 1.0  # between two looks at what is to answer
_FRESH_SECONDS = 300.0  # then catalogue and parameters are read anew
_ROWS, _FLUSH_SECONDS = 500, 30.0  # of a file


class Asked(NamedTuple):
    """A request, and how it was answered."""

    decision: str
    user: str  # key
    request: Request  # with its time
    features: UserFeatures
    pipeline: Pipeline  # with the settings that it was answered with
    champion: str  # the release that answered
    shown: Recommendation


class Shadow(threading.Thread):
    """Answers what it is offered, if Redis says that a release is to do so."""

    def __init__(
        self, config: ServerConfig, client: "redis.Redis", clock: Clock, flush_seconds: float = _FLUSH_SECONDS
    ) -> None:
        super().__init__(name="shadow", daemon=True)
        self._deployment = OnlineStore(client, config.redis).deployment
        self._home, self._budget, self._clock = config.layout, config.serving.shadow_cpu, clock
        pipeline = Pipeline(config.serving, config.bandit)
        online, state = OnlineStore(client, config.redis), BanditStore(client, config.redis)
        partitions, quarantine = config.kafka.partitions, Quarantine()
        self._load = loader(config.home, partitions, online, state, pipeline, quarantine, clock)
        self._rng = np.random.default_rng(config.seed)
        self._sampled = np.random.default_rng(config.seed)
        self._flush_seconds = flush_seconds
        self._waiting: queue.Queue[Asked] = queue.Queue(_WAITING)
        self._stop_asked = threading.Event()
        self._wanted: Shadowing | None = None
        self._state: ServingState | None = None
        self._looked = self._loaded = self._written = float("-inf")  # monotonic time
        self._rows: list[dict[str, Any]] = []

    def offer(self, asked: Asked) -> None:
        """Takes note of a request, or passes it over. Never waits."""
        wanted = self._wanted
        if self._state is None or wanted is None or self._sampled.random() >= wanted.share:
            return
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            metrics.SHADOW.labels("passed over").inc()

    def stop(self) -> None:
        """Has the thread end, with what it knows written."""
        self._stop_asked.set()

    def run(self) -> None:
        """The thread's work."""
        while not self._stop_asked.is_set():
            before = time.thread_time()
            try:
                self._step()
            except (MatchLoopError, redis.RedisError, OSError) as error:
                _log.warning("nothing answers unseen for now: %s", error)
                self._stop_asked.wait(_LOOK_SECONDS)
            except Exception:  # noqa: BLE001 - whatever is wrong with it, nobody who is served may notice
                metrics.SHADOW.labels("failed").inc()
                _log.exception("a request could not be answered unseen")
            used = time.thread_time() - before
            self._stop_asked.wait(used / self._budget - used)
        self._write()

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._look(self._deployment.shadowing())
        if self._rows and (len(self._rows) >= _ROWS or now - self._written > self._flush_seconds):
            self._write()
        try:
            asked = self._waiting.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return
        if self._state is not None:
            self._rows.append(self._answer(self._state, asked))
            metrics.SHADOW.labels("answered").inc()

    def _look(self, wanted: Shadowing | None) -> None:
        if wanted != self._wanted:
            self._write()
            self._state = None
        self._wanted = wanted
        if wanted is not None and (self._state is None or time.monotonic() - self._loaded > _FRESH_SECONDS):
            self._state = self._load(Active(wanted.release, wanted.namespace))
            self._loaded = time.monotonic()

    def _answer(self, state: ServingState, asked: Asked) -> dict[str, Any]:
        table = state.parameters.table(self._clock.now_ms())
        unseen = asked.pipeline.untimed().recommend(state.snapshot, table, asked.request, asked.features, self._rng)
        slots = asked.shown.shown
        return {
            "decision": asked.decision,
            "user": asked.user,
            "time": asked.request.time,
            "champion": asked.champion,
            "shown": asked.shown.slate,
            "shown_predicted": asked.shown.predicted[:slots],
            "shown_predicted_unseen": _predicted(unseen, asked.shown.slate),
            "items": unseen.slate,
            "predicted": unseen.predicted[: unseen.shown],
            "champion_predicted": _predicted(asked.shown, unseen.slate),
        }

    def _write(self) -> None:
        """A file of its own: whole or not at all."""
        self._written = time.monotonic()
        rows, self._rows = self._rows, []
        if not rows or self._wanted is None:
            return
        folder: Path = self._home.shadow / self._wanted.release
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{rows[0]['time']}-{os.getpid()}-{time.monotonic_ns()}.parquet"
            write(pa.Table.from_pylist(rows, schema=SHADOW), folder / f".{name}")
            (folder / f".{name}").rename(folder / name)
        except OSError as error:
            _log.warning("%d answers that nobody saw are lost: %s", len(rows), error)


def _predicted(by: Recommendation, items: Sequence[str]) -> list[float | None]:
    """What a recommendation's model predicted of items, None where they were no candidates."""
    known = dict(zip(by.candidates.ids(), by.candidates.predicted.tolist(), strict=True))
    return [known.get(item) for item in items]
