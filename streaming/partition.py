"""One partition of one namespace: its fold, its position, and the commit that moves both together."""

import logging
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future

from prometheus_client import Counter, Gauge, Histogram

from feature_store.bandit_state import BanditStore, Commit, Position, RowsSnapshot, Tail
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.rewriting import reading
from streaming.admission import events_of
from streaming.dead_letter import Letter, Outbox
from streaming.fold import Fold
from streaming.kafka import Appended, Record
from streaming.lake_events import coverage, log_order, read_events
from streaming.settings import RewardSettings

_log = logging.getLogger(__name__)

_LAKE_EVENTS = 20_000  # folded between two commits

EVENTS = Counter("matchloop_updater_events", "Events folded, by outcome", ["outcome"])
OPEN = Gauge("matchloop_updater_open_decisions", "Decisions whose window has not closed", ["namespace", "partition"])
COMMIT = Histogram("matchloop_updater_commit_seconds", "Time of one commit", buckets=[0.0005 * 2**i for i in range(12)])
COMMITTED = Gauge(
    "matchloop_updater_last_commit_timestamp_seconds", "When a partition last committed", ["namespace", "partition"]
)


class PartitionUpdater:
    """One partition of one namespace."""

    def __init__(
        self,
        namespace: Namespace,
        partition: int,
        log_id: str,
        state: BanditStore,
        rewards: RewardSettings,
        home: Home,
    ) -> None:
        self._namespace = namespace
        self._partition = partition
        self._log_id = log_id
        self._state = state
        self._rewards = rewards
        self._home = home
        self._posted: deque[Future[Appended]] = deque()
        self.reload()

    @property
    def offset(self) -> int:
        """The next offset to fold."""
        return self._position.offset

    def reload(self) -> None:
        """Reads the stored state back, and moves on to the present log if the stored position belongs to another
        one."""
        self._posted.clear()
        self._letters_of_lake: list[Letter] = []
        stored = self._state.load(self._namespace.id, self._partition)
        if stored.position is None:
            self._fold = Fold(self._namespace, self._rewards, self._namespace.starts[self._partition])
        else:
            start = Start(stored.stream_time, stored.learning, stored.open)
            self._fold = Fold(self._namespace, self._rewards, start, stored.rows)
        self._stored, self._tail = stored.position, stored.tail
        self._logs = stored.logs
        first = Position(self._namespace.log, self._namespace.offsets[self._partition])
        self._position = stored.position or first
        if self._position.log != self._log_id:
            self._move_to_new_log()

    def fold(self, records: list[Record]) -> list[Letter]:
        """Folds records in memory and returns the dead letters among them. Records below the position are skipped."""
        letters, self._letters_of_lake = self._letters_of_lake, []
        for record in records:
            if record.offset < self._position.offset:
                continue
            try:
                self._fold.apply(events_of(record))
            except InvalidInput as error:
                self._fold.outcomes["unreadable"] += 1
                letters.append(self._letter(self._log_id, record.offset, str(error), None, record.value))
            letters += self._dead_letters(self._log_id, record.offset)
            self._position = Position(self._log_id, record.offset + 1)
        return letters

    def fold_lake(self) -> bool:
        """Folds what the lake holds from the offset on, a part of it at most. Returns whether that led on: for where
        the log begins later. What the sink has marked as lost is passed over."""
        if self._position.log != self._log_id:
            return False
        with reading(self._home):
            reached = coverage(self._home.lake, self._log_id, self._partition)
            if reached <= self.offset:
                return False
            events = read_events(self._home.lake, self._log_id, self._partition, self.offset)
            for count, (offset, event) in enumerate(events):
                if count >= _LAKE_EVENTS and offset >= self._position.offset:
                    return True
                self._fold.apply([event])
                self._letters_of_lake += self._dead_letters(self._log_id, offset)
                self._position = Position(self._log_id, offset + 1)
            self._position = Position(self._log_id, reached)
        return True

    def post(self, letters: Collection[Letter], outbox: Outbox) -> None:
        """Sends dead letters. Nothing is committed until the log has them; folding may go on meanwhile."""
        self._posted.extend(map(outbox.post, letters))

    def commit(self, online: OnlineStore) -> bool:
        """Writes what was folded, unless dead letters are on their way; returns whether something was written. Raises
        Fenced, with nothing committed, if another writer was ahead: reload then. Raises Unavailable if the log does not
        take a dead letter."""
        if self._position == self._stored or not self._letters_arrived():
            return False
        changes = self._fold.take()
        online.users.add_history(changes.history)
        online.users.put_profiles(changes.profiles)
        online.users.depart(changes.departures)
        tail = Tail(self._tail.deltas + 1, self._tail.rows + len(changes.rows.item))
        snapshot = None
        if self._state.wants_snapshot(tail, len(self._fold.sums)):
            snapshot, tail = RowsSnapshot(self._fold.sums.rows(), tail.deltas), Tail()
        with COMMIT.time():
            self._state.commit(
                self._namespace.id,
                self._partition,
                self._stored,
                Commit(
                    position=self._position,
                    logs=self._logs,
                    stream_time=self._fold.stream_time,
                    learning=self._fold.learning,
                    changes=changes.rows,
                    opened=changes.opened,
                    closed=changes.closed,
                    snapshot=snapshot,
                ),
            )
        self._stored, self._tail = self._position, tail
        for outcome, count in self._fold.outcomes.items():
            EVENTS.labels(outcome).inc(count)
        self._fold.outcomes.clear()
        OPEN.labels(self._namespace.id, str(self._partition)).set(self._fold.open_decisions)
        COMMITTED.labels(self._namespace.id, str(self._partition)).set_to_current_time()
        return True

    def _letters_arrived(self) -> bool:
        while self._posted and self._posted[0].done():
            self._posted[0].result()
            self._posted.popleft()
        return not self._posted

    def _move_to_new_log(self) -> None:
        """The log began anew. What the lake still has of the old one is folded first; what the broker lost is lost."""
        start = self._position
        with reading(self._home):
            for log in [start.log, *self._logs_between(start.log)]:
                end = max(start.offset, coverage(self._home.lake, log, self._partition))
                for offset, event in read_events(self._home.lake, log, self._partition, start.offset):
                    self._fold.apply([event])
                    self._letters_of_lake += self._dead_letters(log, offset)
                self._logs = [*self._logs, str(Position(log, end))]
                _log.warning(
                    "partition %d of %s: log %s began anew as %s; state up to offset %d is kept",
                    self._partition, self._namespace.id, log, self._log_id, end,
                )  # fmt: skip
                start = Position(log, 0)
        self._position = Position(self._log_id, 0)

    def _logs_between(self, log: str) -> list[str]:
        """The logs that began after it and before the present one: nobody folded them while they were there."""
        order = log_order(self._home.lake)
        later = order[order.index(log) + 1 :] if log in order else []
        return [one for one in later if one != self._log_id]

    def _dead_letters(self, log: str, offset: int) -> list[Letter]:
        return [self._letter(log, offset, dead.reason, dead.event, None) for dead in self._fold.take_dead()]

    def _letter(self, log: str, offset: int, reason: str, event: Event | None, record: bytes | None) -> Letter:
        return Letter(
            log=log,
            partition=self._partition,
            offset=offset,
            namespace=self._namespace.id,
            reason=reason,
            event=event,
            record=record,
        )
