"""The fold: events in, sums out. The one definition of what the log means to the bandit.

Pure and deterministic: the same events in the same order give the same sums, whether they come from the broker, from
the lake, in one batch or in many. Stream time is the largest record time seen; nothing here looks at a clock.

What happens to an event, each counted in `outcomes`:
    decision    a decision: its shown items are trials served
    withdrawn   a decision that was never shown: what serving it added is taken back, or it is not counted if it comes
    learnt      first feedback on a shown item: the trial is resolved with its reward
    corrected   further feedback on it: the sums change by new reward minus old
    silent      a trial without feedback when its window closes: resolved with the reward of silence
    seen        feedback on a decision that does not train the bandit, or while learning is off: only remembered
    profile     what is known about a user: for the online store
    erased      a user's erasure: their open decisions close at once, their trials without feedback are taken back
    merged      a visitor's merging with a user: what comes of their open decisions is in the user's history
    unlogged    feedback on an answer that went out although the log had not taken its decision: only remembered
    interaction an event that belongs to no decision: only remembered
    pinned      feedback on what was pinned into a slate: only remembered
    duplicate   a decision that is open, or an event id that its decision has had already
    late        a decision, or feedback on one, whose window has closed
    dead        cannot be processed: see _problem
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from feature_store.contracts.catalogue import UserProfile
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import (
    Decision,
    Erasure,
    Event,
    Feedback,
    Merge,
    Profile,
    Switch,
    Withdrawal,
    event_time,
)
from feature_store.contracts.identity import DecisionRef, read_decision_id
from feature_store.definitions import HistoryEvent, kind_of
from feature_store.namespace import Namespace, Start
from feature_store.sums import Rows, Sums
from streaming.bandit.rewards import is_positive, reward
from streaming.bandit.slates import expected
from streaming.bandit.update import Shares
from streaming.faults import fault, feedback_fault
from streaming.open_decisions import OpenDecision, absent, opened_by, pack, take_in, translated, unpack, unresolved_of
from streaming.settings import VIEW, RewardSettings

_WAITING_ROWS = 1 << 16  # at most, before they are added up


Share = tuple[float, float, float, float]  # of a trial: as bandit.update has it
_NOTHING: Share = (0.0, 0.0, 0.0, 0.0)


class DeadLetter(NamedTuple):
    """An event that cannot be processed, and why."""

    event: Event
    reason: str


class Changes(NamedTuple):
    """What the events since the last take changed."""

    rows: Rows  # what they added
    opened: dict[str, bytes]
    closed: list[str]
    history: list[tuple[str, HistoryEvent]]  # of users, by key: all counted feedback but views
    profiles: list[tuple[str, list[str], int]]  # of users, by key: tokens, and when (ms) they became known
    departures: list[Erasure | Merge]  # of whom nothing that was known until then is to be known any more


class Fold:
    """The state of one partition of a namespace, base not included."""

    def __init__(
        self,
        namespace: Namespace,
        settings: RewardSettings,
        start: Start,
        rows: Rows | None = None,
        audit: bool = False,
    ) -> None:
        """Begins with nothing added up, or goes on with stored rows and what was stored beside them. audit: keep the
        sums of absolute contributions too."""
        self._sums = Sums() if rows is None else Sums.of(rows)
        self._absolute = Sums(self._sums.numbers) if audit else None
        self._added = Sums(self._sums.numbers)
        self._shares = Shares()
        self.stream_time = start.stream_time
        self.learning = start.learning
        self.outcomes: Counter[str] = Counter()
        self._namespace = namespace
        self._decay = namespace.decay
        self._settings = settings
        self._window = int(settings.window_seconds * 1000)
        self._open: dict[str, OpenDecision] = {}
        self._open_of: dict[str, set[str]] = {}  # by user
        self._closing: list[tuple[int, str]] = []
        self._dead: list[DeadLetter] = []
        self._forget_changes()
        for name, state in start.opened.items():
            self._open_decision(name, unpack(state))
        if rows is not None:  # otherwise nothing is stored yet: what it begins with is news
            self._touched.clear()

    @property
    def sums(self) -> Sums:
        """What the events add up to."""
        self._add_up()
        return self._sums

    @property
    def absolute(self) -> Sums:
        """What the absolute contributions add up to, if they were to be kept: what an error is measured by."""
        self._add_up()
        assert self._absolute is not None, "made without audit=True"
        return self._absolute

    @property
    def open_decisions(self) -> int:
        """How many decisions wait for feedback."""
        return len(self._open)

    def apply(self, events: Iterable[Event]) -> None:
        """Folds events in log order."""
        for event in events:
            time = event_time(event)
            if time > self.stream_time:
                self.stream_time = time
                self._close_windows()
            match event:
                case Decision():
                    self._decide(event)
                case Feedback():
                    self._feed_back(event)
                case Withdrawal():
                    self._withdraw(event)
                case Profile():
                    self._describe(event)
                case Erasure():
                    self._erase(event)
                case Merge():
                    self._merge(event)
                case Switch():
                    self.learning = event.learning

    def start(self) -> Start:
        """What a fold that goes on from here begins with."""
        opened = {name: pack(decision) for name, decision in self._open.items()}
        return Start(self.stream_time, self.learning, opened)

    def take(self) -> Changes:
        """What changed since the last take."""
        self._add_up()
        changes = Changes(
            rows=self._added.rows(),
            opened={name: pack(self._open[name]) for name in sorted(self._touched)},
            closed=list(self._closed),
            history=self._history,
            profiles=self._profiles,
            departures=self._departures,
        )
        self._forget_changes()
        return changes

    def take_dead(self) -> list[DeadLetter]:
        """Events since the last call that could not be processed."""
        dead, self._dead = self._dead, []
        return dead

    def _forget_changes(self) -> None:
        self._added.clear()
        self._touched: set[str] = set()
        self._closed: dict[str, None] = {}
        self._history: list[tuple[str, HistoryEvent]] = []
        self._profiles: list[tuple[str, list[str], int]] = []
        self._departures: list[Erasure | Merge] = []

    def _decide(self, decision: Decision) -> None:
        if problem := fault(decision, self._namespace):
            self._reject(decision, problem)
            return
        if decision.id in self._open:
            self.outcomes["duplicate"] += 1
            return
        if not self._in_window(decision.time):  # it may have counted already, and been forgotten
            self.outcomes["late"] += 1
            return
        self.outcomes["decision"] += 1
        opened = opened_by(decision, decision.learns and self.learning, self._namespace.steepness)
        if decision.release != self._namespace.release:
            matrix = self._namespace.translations.get(decision.release)
            opened = translated(opened, matrix, self._namespace.graph)
        self._open_decision(decision.id, opened)
        if opened.learns:
            self._share(opened, range(decision.shown), (1.0, 0.0, 0.0, 0.0))

    def _withdraw(self, withdrawal: Withdrawal) -> None:
        """The slate was never shown: what serving it added is taken back. A decision that comes behind its withdrawal
        finds its id taken."""
        if withdrawal.decision not in self._open:
            named = read_decision_id(withdrawal.decision)
            if named is not None and (held := absent(named, withdrawal.time, self.stream_time, self._window)):
                self.outcomes["withdrawn"] += 1
                self._open_decision(withdrawal.decision, held)
            return
        self.outcomes["withdrawn"] += 1
        decision = self._close(withdrawal.decision)
        self._take_back(decision, range(len(decision.items)))

    def _describe(self, profile: Profile) -> None:
        try:
            tokens = UserProfile(attributes=profile.attributes).tokens()
        except InvalidInput as error:
            self._reject(profile, str(error))
            return
        self.outcomes["profile"] += 1
        self._profiles.append((profile.user, tokens, profile.time))

    def _erase(self, erasure: Erasure) -> None:
        """No feedback will come of the user's open decisions any more. What they have taught is in sums over many, and
        stays."""
        self.outcomes["erased"] += 1
        self._departures.append(erasure)
        for name in sorted(self._open_of.get(erasure.user, ())):
            decision = self._close(name)
            self._give_up(decision, unresolved_of(decision))

    def _merge(self, merge: Merge) -> None:
        """Trials stay as they are. What else comes of the visitor's slates is the user's doing."""
        if merge.account == merge.user:
            self._reject(merge, "a user cannot be merged with themselves")
            return
        self.outcomes["merged"] += 1
        self._departures.append(merge)
        for name in self._open_of.get(merge.user, ()):
            self._open[name].account = merge.account
            self._touched.add(name)

    def _feed_back(self, feedback: Feedback) -> None:
        named, decision = read_decision_id(feedback.decision), self._open.get(feedback.decision)
        logged = named is None or named.logged
        if named is not None and not logged and decision is None:
            decision = absent(named, feedback.received, self.stream_time, self._window)
        if problem := self._problem(feedback, named, decision):
            self._reject(feedback, problem)
            return
        if decision is None:
            self.outcomes["late"] += 1
            return
        if feedback.id in decision.event_ids:
            self.outcomes["duplicate"] += 1
            return
        seen = [*decision.items, *decision.pinned]
        if feedback.item not in seen:
            take_in(decision, feedback.item)
            seen = decision.items
        if feedback.decision not in self._open:
            self._open_decision(feedback.decision, decision)
        i = seen.index(feedback.item)
        decision.event_ids[feedback.id] = None
        decision.events.setdefault(i, []).append((feedback.type, feedback.value))
        self._touched.add(feedback.decision)
        if feedback.type != VIEW:
            kind = kind_of(feedback.type, is_positive(self._settings, decision.events[i]))
            event = HistoryEvent(feedback.item, kind, feedback.received)
            self._history.append((decision.account or decision.user, event))
        if i >= len(decision.items):
            self.outcomes["pinned"] += 1
        elif logged:
            self._resolve(decision, i, reward(self._settings, decision.events[i]))
        else:
            self.outcomes["interaction" if named is not None and named.is_none else "unlogged"] += 1

    def _problem(self, feedback: Feedback, named: DecisionRef | None, decision: OpenDecision | None) -> str | None:
        """Why feedback cannot be processed. Signatures were checked before it came into the log; here an id is believed
        to say when its decision was made, which decides between a late event and one without a decision, and whether
        the log was to have it."""
        if decision is None:
            if named is None:
                return "its decision id is not one"
            if named.logged and self._in_window(named.time):
                return "its decision is not in the log before it"
            return None
        return feedback_fault(feedback, named, decision, self._settings.weights)

    def _in_window(self, time: int) -> bool:
        return time + self._window > self.stream_time

    def _open_decision(self, name: str, decision: OpenDecision) -> None:
        self._open[name] = decision
        self._open_of.setdefault(decision.user, set()).add(name)
        self._touched.add(name)
        self._closed.pop(name, None)
        heapq.heappush(self._closing, (decision.time, name))

    def _resolve(self, decision: OpenDecision, i: int, now: float) -> None:
        before = decision.rewards[i]
        if not (decision.learns and self.learning):
            self.outcomes["seen"] += 1
            return
        if before is None:
            self.outcomes["learnt"] += 1
            self._learn(decision, (i,), now, (0.0, 1.0, now, now * now))
        else:
            self.outcomes["corrected"] += 1
            self._learn(decision, (i,), now, (0.0, 0.0, now - before, now * now - before * before))

    def _close_windows(self) -> None:
        """A trial without an event resolves as silence, unless the client reports views and reported none for it."""
        while self._closing and self._closing[0][0] + self._window <= self.stream_time:
            time, name = heapq.heappop(self._closing)
            if name not in self._open or self._open[name].time != time:  # withdrawn, its user erased, or opened anew
                continue
            decision = self._close(name)
            client_reports_views = any(kind == VIEW for events in decision.events.values() for kind, _ in events)
            unresolved = unresolved_of(decision)
            if not decision.learns or not unresolved:
                continue
            if self.learning and not client_reports_views:
                silence = self._settings.silence
                self.outcomes["silent"] += len(unresolved)
                self._learn(decision, unresolved, silence, (0.0, 1.0, silence, silence * silence))
            else:
                self._give_up(decision, unresolved)

    def _close(self, name: str) -> OpenDecision:
        self._touched.discard(name)
        self._closed[name] = None
        decision = self._open.pop(name)
        theirs = self._open_of[decision.user]
        theirs.remove(name)
        if not theirs:
            del self._open_of[decision.user]
        return decision

    def _learn(self, decision: OpenDecision, shown: Sequence[int], reward: float, share: Share) -> None:
        """These items have earned the reward, a share of a trial each, and by it what was expected of all changes."""
        earlier = expected(decision.predicted, decision.rewards)
        for i in shown:
            decision.rewards[i] = reward
        self._expect(decision, shown, share, earlier, expected(decision.predicted, decision.rewards))

    def _give_up(self, decision: OpenDecision, unresolved: Sequence[int]) -> None:
        """No feedback will come of these items any more: they are no longer pending, and count as not seen."""
        self._take_back(decision, unresolved)
        if decision.learns and len(unresolved) < len(decision.items):
            seen = [reward is not None for reward in decision.rewards]
            earlier, now = (expected(decision.predicted, decision.rewards, among) for among in (None, seen))
            self._expect(decision, (), _NOTHING, earlier, now)

    def _expect(
        self, decision: OpenDecision, shown: Sequence[int], share: Share, earlier: list[float], now: list[float]
    ) -> None:
        change = [b - a for a, b in zip(earlier, now, strict=True)]
        self._share(decision, shown, share, [change[i] for i in shown])
        others = [i for i, by in enumerate(change) if by and i not in shown]
        self._share(decision, others, _NOTHING, [change[i] for i in others])

    def _take_back(self, decision: OpenDecision, shown: Sequence[int]) -> None:
        """What serving these items added is taken back."""
        if decision.learns and shown:
            self._share(decision, shown, (-1.0, 0.0, 0.0, 0.0))

    def _share(self, decision: OpenDecision, shown: Sequence[int], share: Share, change: Sequence[float] = ()) -> None:
        """Adds the same share of a trial for some of the shown items. change: of what was expected of each."""
        counts = self._decay.trial(decision.time)  # of the decision: what is taken back or corrected is what was added
        numbers = [self._sums.numbers[decision.items[i]] for i in shown]
        by = [counts * one for one in change] or [0.0] * len(shown)
        edges, scaled = [decision.edges[i] for i in shown], [counts * part for part in share]
        self._shares.add(numbers, by, edges, decision.clusters, decision.weights, scaled)
        if len(self._shares) > _WAITING_ROWS:
            self._add_up()

    def _reject(self, event: Event, reason: str) -> None:
        self.outcomes["dead"] += 1
        self._dead.append(DeadLetter(event, reason))

    def _add_up(self) -> None:
        if len(self._shares):
            additions = self._shares.additions()
            self._shares = Shares()
            self._sums.add(*additions)
            self._added.add(*additions)
            if self._absolute is not None:
                self._absolute.add(additions.item, additions.cluster, np.abs(additions.values))
