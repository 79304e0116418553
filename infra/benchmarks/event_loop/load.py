"""What an API process has to do while it is measured: follow a fleet, take in new items, answer."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from feature_store.bandit_state import BanditStore, Commit, Position, RowsSnapshot, Tail
from feature_store.graph import Graph
from feature_store.sums import ITEM, Rows, Sums
from infra.benchmarks.large_release import item
from offline_training.simulation.client import Client, Failure, FeedbackEvent

_COMMIT_SECONDS = 0.1
_ROWS = (1_200, 6_000)
_MANY_ROWS = 60_000
_EVERY = 30  # commits, one has many rows
_ROWS_PER_ITEM = 6
_VISITS_PER_SECOND = 20
_SLATE_SIZE = 20
_USERS = 5_000
_ITEMS_AT_ONCE = 500
_ITEM_SECONDS = 2.0


class Fleet(threading.Thread):
    """Commits one partition's changes to all namespaces, as the updaters of 1,000 decisions a second do."""

    def __init__(
        self, state: BanditStore, namespaces: Sequence[str], partition: int, log: str, graph: Graph, seed: int
    ) -> None:
        super().__init__(name=f"fleet-{partition}", daemon=True)
        self.commits = self.rows = 0
        self._state, self._namespaces, self._partition = state, namespaces, partition
        self._log, self._graph = log, graph
        self._rng = np.random.default_rng([seed, partition])
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Has it end, and waits for that."""
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        """The thread's work."""
        position, due = None, time.monotonic()
        sums, tail = Sums(), Tail()
        while not self._stop_asked.wait(max(0.0, due - time.monotonic())):
            due += _COMMIT_SECONDS
            many = self.commits % _EVERY == _EVERY - 1
            changes = self._changes(_MANY_ROWS if many else int(self._rng.integers(*_ROWS, endpoint=True)))
            reached = Position(self._log, self.commits + 1)
            sums.add(sums.numbers.of(changes.items)[changes.item], changes.cluster, changes.values)
            tail, snapshot = Tail(tail.deltas + 1, tail.rows + len(changes.item)), None
            if self._state.wants_snapshot(tail, len(sums)):
                snapshot, tail = RowsSnapshot(sums.rows(), tail.deltas), Tail()
            commit = Commit(reached, [], 0, True, changes, {}, [], snapshot)
            for namespace in self._namespaces:
                self._state.commit(namespace, self._partition, position, commit)
            position = reached
            self.commits += 1
            self.rows += len(changes.item)

    def _changes(self, rows: int) -> Rows:
        graph = self._graph
        edges = self._rng.integers(graph.n_edges, size=rows)
        positions, number = np.unique(
            np.searchsorted(graph.item_start, edges, side="right") - 1, return_inverse=True
        )  # the item that an edge is of
        cluster = graph.edge_cluster[edges]
        cluster[::_ROWS_PER_ITEM] = ITEM
        values = self._rng.random((rows, 5))
        return Rows(graph.ids(positions.tolist()), number.astype(np.int32), cluster, values)


class Visitors:
    """Slates and feedback at a low rate, and new items, many at once."""

    def __init__(self, client: Client, seed: int) -> None:
        self.failures: Counter[str] = Counter()
        self.requests = 0
        self.items = 0
        self._client = client
        self._rng = np.random.default_rng(seed)

    async def come(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        loop = asyncio.get_running_loop()
        due = put = loop.time()
        async with asyncio.TaskGroup() as requests:
            while not stop.is_set():
                requests.create_task(self._visit())
                if loop.time() >= put:
                    requests.create_task(self._put())
                    put += _ITEM_SECONDS
                due = max(due + 1 / _VISITS_PER_SECOND, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _visit(self) -> None:
        answer = await self._client.recommend(f"visitor {self._rng.integers(_USERS)}", _SLATE_SIZE, "home")
        self._note(answer)
        if isinstance(answer, Failure) or not answer.logged:
            return
        clicked = answer.items[int(self._rng.integers(len(answer.items)))].id
        event = FeedbackEvent(
            decision_id=answer.decision_id,
            item_id=clicked,
            type="click",
            value=1.0,
            time=0,
            event_id=answer.decision_id,
        )
        self._note(await self._client.send_feedback([event]))

    async def _put(self) -> None:
        first = self.items
        self.items += _ITEMS_AT_ONCE
        new = [item(f"live-{number}", number) for number in range(first, first + _ITEMS_AT_ONCE)]
        self._note(await self._client.put_items(new))

    def _note(self, answer: object) -> None:
        self.requests += 1
        if isinstance(answer, Failure):
            self.failures[answer.kind] += 1
