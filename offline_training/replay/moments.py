"""Logged decisions as of their moments: what was known of the user, the catalogue and the bandit's parameters then.

A decision says what it read of its user. Parameters are the base of a namespace plus the log folded as far as the
decision says that its process had; the catalogue is what the log of the catalogue says by then; what a user had been
shown is what they had interacted with before the release and all their decisions since. Requests' own rules are not in
the log: what they took out is allowed here.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.events import Decision, Event
from feature_store.contracts.identity import MASKED
from feature_store.definitions import HistoryEvent
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.namespace import Namespace
from feature_store.shown import Shown, pack
from feature_store.user_features import UserFeatures
from offline_training.data.lake import catalogue_changes
from offline_training.data.merges import Merged, merges
from offline_training.experiment.impressions import RewardedDecision
from offline_training.promotion.publishing import user_records
from offline_training.runs.runs import all_sets
from online_serving.parameters import Parameters
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import Table
from streaming.fold import Fold
from streaming.lake_events import first_since, read_events
from streaming.lake_files import folders_of
from streaming.settings import RewardSettings

OTHER_LOG = "the state that it was made with began in another log"
EARLIER = "made before the candidate's release: its training has seen what came of it"
RULED = "its request had rules within its slate (caps, pins, diversity), and rules of requests are not in the log"
TWICE = "it was logged twice"
GONE = "its release or namespace is gone"


class Moment(NamedTuple):
    """A decision, and what a policy would have known in its place."""

    decision: Decision
    outcome: RewardedDecision
    user: UserFeatures
    snapshot: Snapshot
    table: Table


class Logged(NamedTuple):
    """A decision and where it stands."""

    log: str
    decision: Decision
    outcome: RewardedDecision


@dataclass
class _State:
    """A namespace as it becomes, decision by decision."""

    namespace: Namespace
    snapshot: Snapshot
    parameters: Parameters
    folds: list[Fold]
    events: list[Iterator[tuple[int, Event]]]
    waiting: list[tuple[int, Event] | None]  # of each partition, the first event that is not folded yet
    changed: int = 0  # how many changes of the catalogue it has


class Past:
    """Goes through logged decisions by time, and keeps the state that each of them met."""

    def __init__(self, home: Home, rewards: RewardSettings, shown_kept: int) -> None:
        self._home, self._rewards, self._shown_kept = home, rewards, shown_kept
        self._imported, self._changes = catalogue_changes(home.lake)
        self._merges = sorted(merges(home.lake), key=lambda merge: merge.time)
        self._states: dict[str, _State | None] = {}
        self.left_out: dict[str, int] = {}

    def moments(
        self, decisions: Sequence[Logged], everything: Sequence[RewardedDecision], namespace: str | None
    ) -> Iterator[Moment]:
        """The decisions (by time) with the state of a namespace, None: each with its own.

        everything: all decisions of the log by time, for what users had been shown. Decisions without a state are
        counted in left_out by reason. A moment holds until the next one is asked for.
        """
        shown = self._shown_before({logged.decision.user for logged in decisions})
        told: list[Sequence[RewardedDecision | Merged]] = [everything, self._merges]
        later = heapq.merge(*told, key=lambda one: one.time)
        upcoming = next(later, None)
        for logged in decisions:
            decision = logged.decision
            while upcoming is not None and upcoming.time < decision.time:
                if isinstance(upcoming, Merged):
                    shown.setdefault(upcoming.account, {}).update(shown.pop(upcoming.user, {}))
                else:
                    shown.setdefault(upcoming.user, {}).update(dict.fromkeys(upcoming.shown, upcoming.time))
                upcoming = next(later, None)
            state = self._state(namespace or decision.namespace)
            if problem := _problem(state, logged, namespace):
                self.left_out[problem] = self.left_out.get(problem, 0) + 1
                continue
            assert state is not None
            self._advance(state, decision)
            history = list(map(HistoryEvent, decision.history, decision.history_kinds, decision.history_times))
            seen = [one for one in shown.get(decision.user, {}).items() if one[1] < decision.time]
            user = UserFeatures(decision.profile, history, Shown(pack(seen[-self._shown_kept :])))
            yield Moment(decision, logged.outcome, user, state.snapshot, state.parameters.table(decision.time))

    def _shown_before(self, users: set[str]) -> dict[str, dict[str, int]]:
        """By user what the training sets say that they met, and when (ms), oldest first."""
        found: dict[str, dict[str, int]] = {}
        for sets in all_sets(self._home.runs):
            for record in user_records(sets):
                if record.user in users:
                    known = found.setdefault(record.user, {})
                    for item, time in sorted(record.shown, key=lambda one: one[1]):
                        known.setdefault(item, time)
        return found

    def _state(self, name: str) -> _State | None:
        if name not in self._states:
            try:
                self._states[name] = self._load(name)
            except ReleaseRefused:
                self._states[name] = None
        return self._states[name]

    def _load(self, name: str) -> _State:
        namespace = Namespace.load(self._home.namespaces, name)
        snapshot = Snapshot.load(self._home.releases, namespace.release)
        snapshot = snapshot.with_items((item.id, item) for item in self._imported)
        decay, offsets = namespace.decay, namespace.offsets
        parameters = Parameters(snapshot.graph, [namespace.base], offsets, decay, snapshot.unknown)
        events = [
            read_events(self._home.lake, namespace.log, partition, start) for partition, start in enumerate(offsets)
        ]
        return _State(
            namespace=namespace,
            snapshot=snapshot,
            parameters=parameters,
            folds=[Fold(namespace, self._rewards, start) for start in namespace.starts],
            events=events,
            waiting=[next(partition, None) for partition in events],
        )

    def _advance(self, state: _State, decision: Decision) -> None:
        """Folds what the decision's process had folded, and changes the catalogue as it was changed by then."""
        first = state.changed
        while state.changed < len(self._changes) and self._changes[state.changed].time <= decision.time:
            state.changed += 1
        if state.changed > first:
            changes = self._changes[first : state.changed]
            state.snapshot = state.snapshot.with_items((change.id, change.item) for change in changes)
            state.parameters.extend(state.snapshot.graph)
        for partition, until in enumerate(decision.offsets):
            while came := _next_record(state, partition, until):
                fold = state.folds[partition]
                fold.apply(came)
                fold.take_dead()
                state.parameters.apply(partition, until, state.parameters.located(fold.take().rows))
                state.parameters.refit(fold.stream_time)


def _next_record(state: _State, partition: int, until: int) -> list[Event]:
    """The events of the next record of a partition before an offset. One by one, for the prior is fitted anew when
    there are so many more trials than before."""
    came: list[Event] = []
    waiting = state.waiting[partition]
    while waiting is not None and waiting[0] < until:
        offset, event = waiting
        came.append(event)
        waiting = next(state.events[partition], None)
        if waiting is None or waiting[0] != offset:
            break
    state.waiting[partition] = waiting
    return came


def logged_decisions(
    lake: LakePath, logs: Sequence[str], outcomes: dict[str, RewardedDecision]
) -> tuple[list[Logged], int]:
    """The decisions with the given ids as they were first logged, by time, and how many more they were logged again.
    Raises InvalidInput if there are none."""
    found: dict[str, Logged] = {}
    again = 0
    since = min((outcome.time for outcome in outcomes.values()), default=0)
    for log in logs:
        for folder in folders_of(lake, log):
            partition = int(folder.name.removeprefix("partition="))
            for _, event in read_events(lake, log, partition, first_since(lake, log, partition, since)):
                if isinstance(event, Decision) and event.id in outcomes and not event.user.startswith(MASKED):
                    again += event.id in found
                    found.setdefault(event.id, Logged(log, event, outcomes[event.id]))
    if not found:
        raise InvalidInput(f"The lake {lake} holds none of the decisions that were asked for.")
    return sorted(found.values(), key=lambda logged: logged.decision.time), again


def _problem(state: _State | None, logged: Logged, wanted: str | None) -> str | None:
    """Why the state says nothing of a decision, None: it does."""
    if state is None:
        return GONE
    namespace, decision = state.namespace, logged.decision
    if decision.greedy is not None:
        return RULED
    if logged.log != namespace.log or len(decision.offsets) != len(namespace.offsets):
        return OTHER_LOG
    if wanted is not None and (
        decision.time < namespace.created
        or any(held < start for held, start in zip(decision.offsets, namespace.offsets, strict=True))
    ):
        return EARLIER
    return None
