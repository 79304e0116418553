"""What serves at this moment: one reference, replaced as a whole."""

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.arrays import Int64
from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import LogMismatch, ReleaseRefused, Unavailable
from feature_store.graph import Graph
from feature_store.namespace import Description, read_base
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.user_features import NOBODY
from online_serving.digest import digest
from online_serving.parameters import Parameters
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Request
from online_serving.quarantine import Entry, Quarantine
from online_serving.snapshot import Snapshot

_DIGESTS = 5  # tries


class FollowPoint(NamedTuple):
    """Where a partition of the parameters stands, and the delta to follow from."""

    position: Position | None
    stream_id: str


class ServingState(NamedTuple):
    """A release with the catalogue, and the parameters of a namespace of it."""

    active: Active
    snapshot: Snapshot
    parameters: Parameters
    places: list[FollowPoint]  # as of loading

    async def digest(self) -> str:
        """Of the parameters as of their offsets, computed beside the event loop. Raises Unavailable if they do not stop
        changing for long enough."""
        for _ in range(_DIGESTS):
            before, graph, table = self.parameters.offsets, self.parameters.graph, self.parameters.table(0)
            found = await asyncio.to_thread(digest, graph, table)
            if self.parameters.offsets == before:
                return found
        raise Unavailable("The parameters change too fast for a digest. Ask when less is learnt.")


class Current:
    """Holds the state. Read and replaced on the event loop only."""

    def __init__(self) -> None:
        self._state: ServingState | None = None
        self.problem = "Looking for the active release."  # before the first state
        self.loading = True  # whether time alone will solve it
        self.serving = asyncio.Event()  # there is a state

    @property
    def state(self) -> ServingState:
        """Raises Unavailable, saying why, before the first release is loaded."""
        if self._state is None:
            raise Unavailable(self.problem)
        return self._state

    def serves(self, item: str, now: int) -> bool:
        """Whether requests can be answered with the item. now: ms since the epoch."""
        if self._state is None:
            return False
        snapshot = self._state.snapshot
        position = snapshot.position(item)
        return position is not None and bool(snapshot.masks_at(now).available[position])

    def publish(self, state: ServingState) -> None:
        """Has every request from now on answered from the state."""
        state.parameters.extend(state.snapshot.graph)
        self._state = state
        self.serving.set()

    def complain(self, problem: str, loading: bool) -> None:
        """Says why there is no state yet, and whether it is on its way."""
        self.problem, self.loading = problem, loading


Loader = Callable[[Active], ServingState]


def loader(
    home: Path,
    partitions: int,
    online: OnlineStore,
    state: BanditStore,
    pipeline: Pipeline,
    quarantine: Quarantine,
    clock: Clock,
) -> Loader:
    """Returns what reads a release, its namespace, the catalogue and the parameters from disk and Redis. It raises
    ReleaseRefused or LogMismatch if they do not fit each other or this program."""

    def load(active: Active) -> ServingState:
        namespace = Description.load(home / "namespaces", active.namespace)
        if namespace.release != active.release:
            raise ReleaseRefused(
                f"Namespace {active.namespace} belongs to release {namespace.release}, not to {active.release}. "
                "Activate a release together with one of its own namespaces."
            )
        if len(namespace.offsets) != partitions:
            raise LogMismatch(
                f"Namespace {active.namespace} was made for {len(namespace.offsets)} partitions, kafka.partitions is "
                f"{partitions}. Set kafka.partitions to what the log has, or retrain."
            )
        snapshot = with_live_catalogue(Snapshot.load(home / "releases", active.release, []), online, quarantine)
        parameters, places = load_parameters(home / "namespaces", namespace, snapshot.graph, state, snapshot.unknown)
        parameters.refit(clock.now_ms())
        _warm_up(pipeline, snapshot, parameters, clock.now_ms())
        return ServingState(active, snapshot, parameters, places)

    return load


def with_live_catalogue(snapshot: Snapshot, online: OnlineStore, quarantine: Quarantine) -> Snapshot:
    """The snapshot with the whole catalogue as it is now: what is not in it is masked."""
    gone = {*snapshot.graph.ids(np.flatnonzero(snapshot.available).tolist()), *quarantine.items}

    def entries() -> Iterator[Entry]:
        for name, item in online.catalogue.items():
            gone.discard(name)
            yield name, item
        yield from ((name, None) for name in gone)

    return quarantine.changed(snapshot, entries())


def load_parameters(
    namespaces: Path, namespace: Description, graph: Graph, state: BanditStore, unknown: Int64
) -> tuple[Parameters, list[FollowPoint]]:
    """The parameters of a namespace over a graph, with a prior that was not fitted yet, and where to follow each
    partition from. unknown: positions of the items that training knew nothing of."""
    base = read_base(namespaces, namespace.id)
    parameters = Parameters(graph, base, namespace.offsets, namespace.decay, unknown)
    places = []
    for partition, first in enumerate(namespace.offsets):
        position, rows, stream_id = state.load_rows(namespace.id, partition)
        parameters.apply(partition, position.offset if position else first, parameters.located(rows))
        places.append(FollowPoint(position, stream_id))
    _give_memory_back()
    return parameters, places


def _give_memory_back() -> None:
    """What loading took is as large as what was loaded: Arrow and glibc would keep it for the next time."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _warm_up(pipeline: Pipeline, snapshot: Snapshot, parameters: Parameters, now: int) -> None:
    """Compiles kernels and fills allocators before the first request has to wait for it."""
    rng = np.random.default_rng(0)
    pipeline.recommend(snapshot, parameters.table(now), Request(slate_size=1), NOBODY, rng)
