"""The fold: events in, sums out. The one definition of what the log means to the bandit.

Pure and deterministic: the same events in the same order give the same sums, whether they come from the broker, from
the lake, in one batch or in many. Stream time is the largest record time seen; nothing here looks at a clock.

What happens to an event, each counted in `outcomes`:
    decision    a decision: its shown items are trials served
    withdrawn   a decision that was never shown: what serving it added is taken back
    learnt      first feedback on a shown item: the trial is resolved with its reward
    corrected   further feedback on it: the sums change by new reward minus old
    silent      a trial without feedback when its window closes: resolved with the reward of silence
    seen        feedback on a decision that does not train the bandit, or while learning is off: only remembered
    duplicate   a decision that is open, or an event id that its decision has had already
    late        a decision, or feedback on one, whose window has closed
    dead        cannot be processed: see _problem
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.contracts.events import (
    MAX_VALUE,
    Decision,
    Event,
    Feedback,
    Switch,
    Withdrawal,
    event_time,
)
from feature_store.contracts.identity import read_decision_id
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import Float64, Rows, Sums
from streaming.bandit.diag_linucb import MAX_ACTIVE_CLUSTERS
from streaming.bandit.rewards import reward
from streaming.bandit.update import Shares
from streaming.settings import VIEW, RewardSettings

_QUOTED = 100  # characters of what a client sent
_WAITING_ROWS = 1 << 16  # at most, before they are added up
_MIN_TRANSLATED_WEIGHT = 0.01  # of a cluster that a decision of another release is folded onto


class OpenDecision(msgspec.Struct, array_like=True):
    """A decision whose window has not closed: what late corrections and duplicates are held against."""

    user: str
    time: int
    learns: bool
    clusters: list[int]  # of this namespace
    weights: list[float]
    items: list[str]  # shown
    predicted: list[float]
    edges: list[int]  # bit k: the item has an edge to clusters[k]
    rewards: list[float | None]  # of resolved trials
    events: dict[int, list[tuple[str, float]]] = {}  # slate index -> (type, value)
    event_ids: list[str] = []


class DeadLetter(NamedTuple):
    """An event that cannot be processed, and why."""

    event: Event
    reason: str


class Changes(NamedTuple):
    """What the events since the last take changed."""

    rows: Rows  # what they added
    opened: dict[str, bytes]
    closed: list[str]
    positives: list[tuple[str, str, int]]  # user, item, ms: for users' histories


_open_encoder = msgspec.msgpack.Encoder()
_open_decoder = msgspec.msgpack.Decoder(OpenDecision)


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
        self._shares = Shares()
        self.stream_time = start.stream_time
        self.learning = start.learning
        self.outcomes: Counter[str] = Counter()
        self._namespace = namespace
        self._settings = settings
        self._window = int(settings.window_seconds * 1000)
        self._open = {name: _open_decoder.decode(state) for name, state in start.opened.items()}
        self._closing = [(decision.time, name) for name, decision in self._open.items()]
        heapq.heapify(self._closing)
        self._dead: list[DeadLetter] = []
        self._forget_changes()
        if rows is None:  # nothing is stored yet: what it begins with is news
            self._touched.update(self._open)

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
            self.stream_time = max(self.stream_time, event_time(event))
            self._close_windows()
            match event:
                case Decision():
                    self._decide(event)
                case Feedback():
                    self._feed_back(event)
                case Withdrawal():
                    self._withdraw(event)
                case Switch():
                    self.learning = event.learning

    def start(self) -> Start:
        """What a fold that goes on from here begins with."""
        opened = {name: _open_encoder.encode(decision) for name, decision in self._open.items()}
        return Start(self.stream_time, self.learning, opened)

    def take(self) -> Changes:
        """What changed since the last take."""
        self._add_up()
        changes = Changes(
            rows=self._added.rows(),
            opened={name: _open_encoder.encode(self._open[name]) for name in sorted(self._touched)},
            closed=self._closed,
            positives=self._positives,
        )
        self._forget_changes()
        return changes

    def take_dead(self) -> list[DeadLetter]:
        """Events since the last call that could not be processed."""
        dead, self._dead = self._dead, []
        return dead

    def _forget_changes(self) -> None:
        self._added = Sums(self._sums.numbers)
        self._touched: set[str] = set()
        self._closed: list[str] = []
        self._positives: list[tuple[str, str, int]] = []

    def _decide(self, decision: Decision) -> None:
        if decision.id in self._open:
            self.outcomes["duplicate"] += 1
            return
        if decision.time + self._window <= self.stream_time:  # it may have counted already, and been forgotten
            self.outcomes["late"] += 1
            return
        self.outcomes["decision"] += 1
        shown = decision.items[: decision.shown]
        opened = OpenDecision(
            user=decision.user,
            time=decision.time,
            learns=decision.learns and self.learning,
            clusters=decision.clusters,
            weights=decision.weights,
            items=shown,
            predicted=decision.predicted[: decision.shown],
            edges=decision.edges[: decision.shown],
            rewards=[None] * len(shown),
        )
        if decision.release != self._namespace.release:
            matrix = self._namespace.translations.get(decision.release)
            opened = _translated(opened, matrix, self._namespace.graph)
        self._open[decision.id] = opened
        self._touched.add(decision.id)
        heapq.heappush(self._closing, (decision.time, decision.id))
        if opened.learns:
            self._share(opened, range(len(shown)), 1.0, 0.0, 0.0, 0.0)

    def _withdraw(self, withdrawal: Withdrawal) -> None:
        """The slate was never shown: what serving it added is taken back."""
        decision = self._open.pop(withdrawal.decision, None)
        if decision is None:
            return
        self.outcomes["withdrawn"] += 1
        self._touched.discard(withdrawal.decision)
        self._closed.append(withdrawal.decision)
        if decision.learns:
            self._share(decision, range(len(decision.items)), -1.0, 0.0, 0.0, 0.0)

    def _feed_back(self, feedback: Feedback) -> None:
        decision = self._open.get(feedback.decision)
        if problem := self._problem(feedback, decision):
            self.outcomes["dead"] += 1
            self._dead.append(DeadLetter(feedback, problem))
            return
        if decision is None:
            self.outcomes["late"] += 1
            return
        if feedback.id in decision.event_ids:
            self.outcomes["duplicate"] += 1
            return
        i = decision.items.index(feedback.item)
        decision.event_ids.append(feedback.id)
        decision.events.setdefault(i, []).append((feedback.type, feedback.value))
        self._touched.add(feedback.decision)
        self._resolve(decision, i, reward(self._settings, decision.events[i]), feedback)

    def _problem(self, feedback: Feedback, decision: OpenDecision | None) -> str | None:
        """Why feedback cannot be processed. Signatures were checked before it came into the log; here an id is believed
        to say when its decision was made, which decides between a late event and one without a decision."""
        if decision is None:
            named = read_decision_id(feedback.decision)
            if named is None:
                return "its decision id is not one"
            if named.time + self._window > self.stream_time:
                return "its decision is not in the log before it"
            return None
        if feedback.user != decision.user:
            return "it comes from another user than its decision's"
        if feedback.item not in decision.items:
            return "its item was not in the decision's slate"
        if feedback.type not in self._settings.weights:
            return f"event type {feedback.type[:_QUOTED]!r} is not declared in rewards.weights"
        if not abs(feedback.value) <= MAX_VALUE:  # also what is not a number
            return f"its value {feedback.value} is not a number between -{MAX_VALUE:g} and {MAX_VALUE:g}"
        return None

    def _resolve(self, decision: OpenDecision, i: int, now: float, feedback: Feedback) -> None:
        before = decision.rewards[i]
        if now >= self._settings.positive and (before is None or before < self._settings.positive):
            self._positives.append((decision.user, feedback.item, feedback.received))
        if not (decision.learns and self.learning):
            self.outcomes["seen"] += 1
            return
        decision.rewards[i] = now
        if before is None:
            self.outcomes["learnt"] += 1
            self._share(decision, (i,), 0.0, 1.0, now, now * now)
        else:
            self.outcomes["corrected"] += 1
            self._share(decision, (i,), 0.0, 0.0, now - before, now * now - before * before)

    def _close_windows(self) -> None:
        """A trial without an event resolves as silence, unless the client reports views and reported none for it."""
        while self._closing and self._closing[0][0] + self._window <= self.stream_time:
            _, name = heapq.heappop(self._closing)
            decision = self._open.pop(name, None)
            if decision is None:  # withdrawn
                continue
            self._touched.discard(name)
            self._closed.append(name)
            client_reports_views = any(kind == VIEW for events in decision.events.values() for kind, _ in events)
            if decision.learns and self.learning and not client_reports_views:
                silence = self._settings.silence
                unresolved = [i for i, value in enumerate(decision.rewards) if value is None]
                self.outcomes["silent"] += len(unresolved)
                self._share(decision, unresolved, 0.0, 1.0, silence, silence * silence)

    def _share(
        self, decision: OpenDecision, shown: Sequence[int], served: float, trials: float, reward: float, squared: float
    ) -> None:
        """Adds the same share of a trial for some of the shown items."""
        numbers = self._sums.numbers
        self._shares.add(
            [numbers[decision.items[i]] for i in shown],
            [decision.predicted[i] for i in shown],
            [decision.edges[i] for i in shown],
            decision.clusters,
            decision.weights,
            (served, trials, reward, squared),
        )
        if len(self._shares) > _WAITING_ROWS:
            self._add_up()

    def _add_up(self) -> None:
        if len(self._shares):
            additions = self._shares.additions()
            self._shares = Shares()
            self._sums.add(*additions)
            self._added.add(*additions)
            if self._absolute is not None:
                self._absolute.add(additions.item, additions.cluster, np.abs(additions.values))


def translate(start: Start, matrix: Float64, graph: Graph) -> Start:
    """What a fold over another release's clusters begins with. matrix: (clusters here, clusters there), row-stochastic;
    graph: that release's."""
    opened = {
        name: _open_encoder.encode(_translated(_open_decoder.decode(state), matrix, graph))
        for name, state in start.opened.items()
    }
    return Start(start.stream_time, start.learning, opened)


def without(start: Start, users: Collection[str] | None = None) -> Start:
    """The same beginning, in which what is open of these users, or of everybody, teaches nothing: its later feedback
    and its silence are only seen."""
    opened = {}
    for name, state in start.opened.items():
        decision = _open_decoder.decode(state)
        if users is None or decision.user in users:
            decision.learns = False
        opened[name] = _open_encoder.encode(decision)
    return Start(start.stream_time, start.learning, opened)


def _translated(decision: OpenDecision, matrix: Float64 | None, graph: Graph) -> OpenDecision:
    """The decision as one made on other clusters: w' = w M, over the edges that the graph has. Without a matrix its
    clusters mean nothing here, and only item rows learn."""
    clusters: list[int] = []
    weights: list[float] = []
    if matrix is not None and decision.clusters:
        spread = np.asarray(decision.weights) @ matrix[decision.clusters]
        strongest = np.sort(np.argsort(-spread, kind="stable")[:MAX_ACTIVE_CLUSTERS])
        clusters = [int(c) for c in strongest if spread[c] >= _MIN_TRANSLATED_WEIGHT]
        weights = [min(float(spread[c]), 1.0) for c in clusters]
    edges = [edge_mask(graph, clusters, item) for item in decision.items]
    return msgspec.structs.replace(decision, clusters=clusters, weights=weights, edges=edges)


def edge_mask(graph: Graph, clusters: Sequence[int], item: str) -> int:
    """Which of the clusters the item has an edge to: bit k stands for clusters[k]."""
    j = graph.index.get(item)
    if j is None:
        return 0
    return sum(1 << k for k, cluster in enumerate(clusters) if graph.row(cluster, j) is not None)
