"""The closed loop of one arm in one world, in process: pipeline, parameters and fold are those of an installation.

Nothing an arm does reaches another one, and all of them meet the same: visitors come in the same order, have the same
opinions and look at the same places, and what is drawn at random in a visit is drawn by its number.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.pay.arms import Arm
from benchmarks.pay.release import Prepared
from benchmarks.pay.world import opinions, schedule
from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.events import Decision, Event, Feedback
from feature_store.contracts.experiments import UNASSIGNED
from feature_store.contracts.identity import Keyring
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.shown import named
from feature_store.sums import NO_ROWS, Rows, Sums
from feature_store.translation import Translation
from feature_store.user_features import UserFeatures
from online_serving.decisions import Provenance, build
from online_serving.parameters import Parameters
from online_serving.pipeline.features import EncodedUser, candidate_features, encode_user
from online_serving.pipeline.pipeline import Pipeline, Predict
from online_serving.pipeline.request import Request
from streaming.fold import Fold
from streaming.open_decisions import translate
from streaming.settings import VIEW, BanditMode, RewardSettings

VISIT_MS = 1_000  # between two visits
_NOTHING = -1
_LIKE = "like"
_KEYRING = Keyring(b"the bench's own visitors")


class Run(NamedTuple):
    """What an arm showed, visit by visit, and what of it was liked. visitor (n,); shown (n, slate): item numbers, -1 in
    places that stayed empty; liked (n, slate). seconds: of CPU."""

    visitor: Int64
    shown: Int64
    liked: Bool
    seconds: float


class Change(NamedTuple):
    """Another release follows. matrix: from the clusters before to its own. base: from what was learnt until then to
    what its bandit begins with."""

    prepared: Prepared
    matrix: Translation
    base: Callable[[Rows], Rows]


Follow = Callable[[int, Run], Change | None]  # of a turn, and what was shown before it
"""Which release follows when a turn begins, if any."""


def no_other(_: int, before: Run) -> None:
    """One release serves throughout."""
    del before


def run(
    prepared: Prepared,
    arm: Arm,
    seed: int,
    *,
    follow: Follow = no_other,
    record: Callable[[list[Event]], None] | None = None,
) -> Run:
    """Plays an arm. seed: of the visitors' order, their opinions and what is drawn in a visit. record: takes what the
    log gets, record by record."""
    world, began = prepared.world, time.process_time()
    liked_by, visitors = opinions(world, seed), schedule(world, seed)
    shown = np.full((len(visitors), world.slate), _NOTHING)
    liked = np.zeros(shown.shape, np.bool_)
    player = _Player(prepared, arm, record)
    waiting: deque[tuple[int, Bool, Bool]] = deque()  # visits whose feedback is on its way, the likes and looks in them
    for visit, visitor in enumerate(visitors.tolist()):
        turn, start = divmod(visit, len(world.visitors))
        if not start:
            change = follow(turn, Run(visitors[:visit], shown[:visit], liked[:visit], 0.0)) if turn else None
            if change is not None:
                player.go_over(change, visit)
            player.begin(turn)
        rng = np.random.default_rng([seed, 2, visit])
        looked = rng.random(world.slate) < world.seen
        numbers = player.show(visit, visitor, rng)
        likes = liked_by[world.tastes[turn], visitor, numbers] & looked[: len(numbers)]
        shown[visit, : len(numbers)], liked[visit, : len(numbers)] = numbers, likes
        waiting.append((visit, likes, looked))
        while waiting and waiting[0][0] + world.delay <= visit:
            player.hear(visit, *waiting.popleft())
        player.learn(visit)
    return Run(visitors, shown, liked, time.process_time() - began)


def visitor_key(number: int) -> str:
    """The user key of a visitor."""
    return _KEYRING.user_key(str(number))


class _Player:
    """One arm's copy of an installation."""

    def __init__(self, prepared: Prepared, arm: Arm, record: Callable[[list[Event]], None] | None) -> None:
        self._world, self._arm, self._record = prepared.world, arm, record
        # A view is no history: it says nothing to an arm that does not learn.
        self._learns = arm.bandit.mode is not BanditMode.OFF
        self._views = prepared.world.reports_views and arm.learns and self._learns
        self._pipeline = Pipeline(arm.serving, arm.bandit)
        self._keys = [visitor_key(row) for row in range(len(prepared.users))]
        self._shown = [set(named(user.shown)) for user in prepared.users]
        self._history = {key: list(user.history) for key, user in zip(self._keys, prepared.users, strict=True)}
        self._events: list[Event] = []  # of this visit
        self._decisions: dict[int, Decision] = {}  # by visit, those whose feedback is on its way
        self._records = 0
        self._serve(prepared, NO_ROWS, Start(learning=arm.learns), {}, 0)
        self.begin(0)

    def go_over(self, change: Change, visit: int) -> None:
        """What was learnt before a visit goes on with another release."""
        now, old = self._time(visit), self._namespace
        learnt = Sums.of(old.base, self._fold.sums.rows()).rows().times(1 / old.decay.trial(now))
        graph = change.prepared.snapshots[0].graph
        start = translate(self._fold.start(), change.matrix, graph)
        self._serve(change.prepared, change.base(learnt), start, {old.release: change.matrix}, visit)

    def _serve(
        self, prepared: Prepared, base: Rows, start: Start, translations: dict[str, Translation], visit: int
    ) -> None:
        first, now = prepared.snapshots[0], self._time(visit)
        namespace = Namespace(
            id=namespace_id(prepared.release, 1),
            release=prepared.release,
            log="pay",
            offsets=[self._records],
            created=now,
            graph=first.graph,
            base=base,
            starts=[start],
            translations=translations,
            memory_days=self._arm.bandit.memory_days,
            steepness=first.manifest.steepness,
        )
        self._prepared, self._namespace = prepared, namespace
        self._parameters = Parameters(first.graph, [base], namespace.offsets, namespace.decay, first.unknown)
        self._parameters.refit(now)
        self._fold = Fold(namespace, RewardSettings(), start)
        self._provenance = (prepared.release, namespace.id)

    def begin(self, turn: int) -> None:
        """The catalogue of a turn, and how the arm scores in it."""
        self._snapshot = self._prepared.snapshots[turn]
        self._parameters.extend(self._snapshot.graph)
        order, tastes = self._arm.order, int(self._world.tastes[turn])
        self._rescore = None if order is None else order(self._prepared, tastes)

    def show(self, visit: int, visitor: int, rng: np.random.Generator) -> Int64:
        """The numbers of the items shown in a visit."""
        snapshot, now = self._snapshot, self._time(visit)
        table = self._parameters.table(now)
        request = Request(self._world.slate, time=now)
        shown = frozenset(self._shown[visitor])
        profile, history = self._prepared.users[visitor].profile, self._history[self._keys[visitor]]
        user = encode_user(snapshot, UserFeatures(profile, history, shown), request)
        predict = self._prediction(user)
        found = self._pipeline.recommend_to(snapshot, table, request, user, shown, predict, rng)
        self._shown[visitor].update(found.slate)
        if found.slate:
            key = self._keys[visitor]
            name = _KEYRING.decision_id(key, now, visit.to_bytes(8, "big"))
            made_with = Provenance(*self._provenance, self._parameters.offsets, UNASSIGNED, self._learns)
            decision = build(name, key, now, request.surface, made_with, found, with_candidates=False)
            self._decisions[visit] = decision
            self._events.append(decision)
        return snapshot.positions(found.slate)

    def hear(self, now: int, visit: int, likes: Bool, looked: Bool) -> None:
        """The feedback on a visit, heard in the visit `now`: views of what was looked at, likes of what was liked."""
        decision = self._decisions.pop(visit, None)
        if decision is None:
            return
        time = self._time(now)
        for place, (like, look) in enumerate(zip(likes.tolist(), looked.tolist(), strict=False)):
            for kind in [VIEW] * (look and self._views) + [_LIKE] * like:
                item = decision.items[place]
                name = f"{place}/{kind}"
                self._events.append(
                    Feedback(
                        id=name, decision=decision.id, user=decision.user, item=item, type=kind, value=1.0,
                        time=time, received=time,
                    )
                )  # fmt: skip

    def learn(self, visit: int) -> None:
        """Folds what the log has got in this visit, and puts it into the parameters."""
        if not self._events:
            return
        self._fold.apply(self._events)
        if self._record is not None:
            self._record(self._events)
        self._records += 1
        self._events = []
        changes, dead = self._fold.take(), self._fold.take_dead()
        assert not dead, f"the bench's own events are refused: {dead[0].reason}"
        self._parameters.apply(0, self._records, self._parameters.located(changes.rows))
        self._parameters.refit(self._time(visit))
        for user, event in changes.history:
            self._history[user].append(event)
            self._history[user].sort(key=lambda known: (known.time, known.item, known.kind), reverse=True)

    def _prediction(self, user: EncodedUser) -> Predict:
        """What the arm scores candidates by before the bandit looks at them."""
        snapshot, rescore = self._snapshot, self._rescore

        def predict(items: Int64) -> Float64:
            predicted = snapshot.towers.predict(candidate_features(snapshot, user, items)).astype(np.float64)
            return predicted if rescore is None else rescore(predicted, items)

        return predict

    def _time(self, visit: int) -> int:
        return self._world.moment + VISIT_MS * visit
