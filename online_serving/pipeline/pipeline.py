"""The pipeline: user, rules, candidates, features, ranking, estimates, slate; in this order.

Used by the API for live requests and by offline replay for logged ones: it knows neither where its inputs come from nor
where its answer goes.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.shown import ShownItems
from online_serving.allowed import Allowed
from online_serving.corpus import Corpus
from online_serving.pipeline import candidates as retrieve
from online_serving.pipeline.explore import Levels, draw, estimate, exploration, levels
from online_serving.pipeline.features import EncodedUser, candidate_features, encode_user, nearness
from online_serving.pipeline.popular import most_popular
from online_serving.pipeline.request import Candidates, Recommendation, Request, Uint8, UserFeatures
from online_serving.pipeline.rules import allowed_items, boosted, boosts
from online_serving.pipeline.slate_rules import best_under, fitted, pinned_items, slate_rules
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import Estimate, Table
from streaming.bandit.exploration import Exploration, Slate
from streaming.bandit.ruled_slates import SlateRules
from streaming.bandit.slates import steepened
from streaming.settings import BanditMode, BanditSettings

Stage = Callable[[str], AbstractContextManager[object]]
Predict = Callable[[Int64], Float64]  # candidates (n,) -> their probabilities of a reward (n,)


class Weighed(NamedTuple):
    """All that a slate is drawn from."""

    candidates: Int64  # (n,) positions in the snapshot
    view: Estimate
    exploration: Exploration


class _Found(NamedTuple):
    candidates: Int64  # (n,)
    sources: Uint8
    predicted: Float64
    compared: Float64  # the same as steep as rewards are before one person, for the bandit
    hits: dict[str, int]  # items that each rule took out
    pinned: dict[int, int]  # by position in the snapshot: wanted places
    rules: SlateRules | None  # within the slate
    slots: int  # to be drawn


class Pipeline:
    """Answers requests. Holds settings only. stage: entered around each stage with its name, to time it, say. corpus:
    the part of the catalogue that it answers from, None: all of it."""

    def __init__(
        self,
        serving: ServingSettings,
        bandit: BanditSettings,
        stage: Stage = nullcontext,
        corpus: Corpus | None = None,
    ) -> None:
        self._serving = serving
        self._bandit = bandit
        self._stage = stage
        self._corpus = corpus

    def untimed(self) -> "Pipeline":
        """The same without its stages being entered."""
        return Pipeline(self._serving, self._bandit, corpus=self._corpus)

    def without_ranker(self) -> "Pipeline":
        """The same by nearness to the user, which no bandit can work on."""
        return Pipeline(
            self._serving.model_copy(update={"ranker": False}),
            self._bandit.model_copy(update={"mode": BanditMode.OFF}),
            self._stage,
            self._corpus,
        )

    def popular(self, snapshot: Snapshot, request: Request, user: UserFeatures) -> Recommendation:
        """The slate that needs no model."""
        return most_popular(snapshot, request, user, self._serving, self._corpus)

    def recommend(
        self,
        snapshot: Snapshot,
        table: Table,
        request: Request,
        user: UserFeatures,
        rng: np.random.Generator,
    ) -> Recommendation:
        """The slate for one request, which may be shorter than asked for if the rules leave fewer items."""
        with self._stage("user"):
            encoded = encode_user(snapshot, user, request)

        def predict(candidates: Int64) -> Float64:
            if not self._serving.ranker:
                return nearness(snapshot, encoded, candidates)
            with self._stage("features"):
                features = candidate_features(snapshot, encoded, candidates)
            with self._stage("rank"):
                predicted = snapshot.towers.predict(features).astype(np.float64)
            if not np.isfinite(predicted).all():
                raise ValueError(f"The ranker of release {snapshot.release} predicts what is no number.")
            return predicted

        return self.recommend_to(snapshot, table, request, encoded, user.shown, predict, rng)

    def recommend_to(
        self,
        snapshot: Snapshot,
        table: Table,
        request: Request,
        user: EncodedUser,
        shown: ShownItems,
        predict: Predict,
        rng: np.random.Generator,
    ) -> Recommendation:
        """The same for a user whom the models have encoded already, and with their predictions. shown: items not to
        show again."""
        found = self._found(snapshot, table, request, user, shown, predict)
        with self._stage("explore"):
            view = self._estimate(snapshot, table, request, user, found)
            slate = draw(self._bandit, request.surface, view, found.slots, rng, found.rules)
        with self._stage("columns"):
            return _columns(snapshot, user, found, view, slate)

    def weigh(
        self,
        snapshot: Snapshot,
        table: Table,
        request: Request,
        user: EncodedUser,
        shown: ShownItems,
        predict: Predict,
    ) -> Weighed:
        """What recommend_to would draw a slate from, and how: for the chances of slates that another policy drew."""
        found = self._found(snapshot, table, request, user, shown, predict)
        view = self._estimate(snapshot, table, request, user, found)
        return Weighed(found.candidates, view, exploration(self._bandit, request.surface))

    def greedy(self) -> "Pipeline":
        """The same without exploration, and without its stages being entered: the best by their estimates."""
        if self._bandit.mode is not BanditMode.EXPLORE:
            return self.untimed()
        return Pipeline(self._serving, self._bandit.model_copy(update={"mode": BanditMode.GREEDY}))

    def levels(self, snapshot: Snapshot, table: Table, request: Request, recommendation: Recommendation) -> Levels:
        """How the estimates of a slate come about that was drawn from these."""
        r = recommendation
        compared = r.candidates.predicted
        if self._bandit.mode is not BanditMode.OFF:
            compared = steepened(compared, snapshot.manifest.steepness, request.slate_size - len(r.pinned or ()))
        clusters, weights = np.array(r.clusters, np.int64), np.array(r.weights)
        items = snapshot.graph.positions(r.slate)
        places = np.argsort(r.candidates.positions)
        places = places[np.searchsorted(r.candidates.positions, items, sorter=places)]
        found = levels(self._bandit, clusters, weights, items, compared[places], table)
        factors = boosts(snapshot, items, request, self._serving)
        return found._replace(
            group=boosted(found.group, factors),
            item=boosted(found.item, factors),
            mean=boosted(found.mean, factors),
            edges=boosted(found.edges, factors),
            deviation=found.deviation * factors,
            optimism=found.optimism * factors,
            boost=factors,
        )

    def _found(
        self,
        snapshot: Snapshot,
        table: Table,
        request: Request,
        user: EncodedUser,
        shown: ShownItems,
        predict: Predict,
    ) -> _Found:
        with contextlib.ExitStack() as answered:
            with self._stage("rules"):
                left = allowed_items(snapshot, request, shown, self._serving, self._corpus)
                allowed, hits = answered.enter_context(left)
            with self._stage("candidates"):
                candidates, sources = self._candidates(snapshot, table, request, user, allowed)
                pinned = pinned_items(snapshot, request, allowed)
        if request.pins:
            hits["pins_not_allowed"] = len(request.pins) - len(pinned)
            candidates, sources = retrieve.with_pinned(candidates, sources, np.array(list(pinned), np.int64))
        predicted, slots = predict(candidates), max(0, request.slate_size - len(pinned))
        compared = steepened(predicted, snapshot.manifest.steepness, slots)
        rules = slate_rules(snapshot, request, candidates, tuple(pinned))
        return _Found(candidates, sources, predicted, compared, hits, pinned, rules, slots)

    def _estimate(
        self, snapshot: Snapshot, table: Table, request: Request, user: EncodedUser, found: _Found
    ) -> Estimate:
        predicted = found.predicted if self._bandit.mode is BanditMode.OFF else found.compared
        view = estimate(self._bandit, user.clusters, user.weights, found.candidates, predicted, table)
        if not (self._serving.category_boosts or request.boosts):
            return view
        factors = boosts(snapshot, found.candidates, request, self._serving)
        return view._replace(mean=boosted(view.mean, factors), bonus=view.bonus * factors)

    def _candidates(
        self, snapshot: Snapshot, table: Table, request: Request, user: EncodedUser, allowed: Allowed
    ) -> tuple[Int64, Uint8]:
        few = allowed.few
        if few is not None and len(few) <= self._serving.candidates and request.only and request.only.items:
            return few, np.full(len(few), retrieve.NAMED, dtype=np.uint8)
        query = retrieve.Query(snapshot, table, user, allowed, request.slate_size, self._bandit.fresh_trials)
        return retrieve.find_all(query, self._serving, self._stage)


def unexplored(recommendation: Recommendation, slate_size: int) -> Recommendation:
    """The same candidates by the offline prediction alone, under the request's rules: what is shown when exploration
    cannot be logged."""
    r = recommendation
    graph, positions, values, sources = r.candidates
    best = best_under(r.slate_rules, values, slate_size - len(r.pinned or ()))
    predicted = values[best].tolist()
    return msgspec.structs.replace(
        r,
        items=graph.ids(positions[best].tolist()),
        shown=len(best),
        sources=[retrieve.source_name(bits) for bits in sources[best].tolist()],
        predicted=predicted,
        mean=predicted,
        bonus=[0.0] * len(best),
        edges=[0] * len(best),
        probabilities=[1.0] * len(best),
        pinned_places=r.pinned_places and fitted(r.pinned_places, len(best) + len(r.pinned_places)),
        pinned_mean=r.pinned_predicted,
    )


def _columns(snapshot: Snapshot, user: EncodedUser, found: _Found, view: Estimate, slate: Slate) -> Recommendation:
    candidates, sources, predicted = found.candidates, found.sources, found.predicted
    logged = np.concatenate([slate.shown, slate.explored])
    graph, pinned = snapshot.graph, list(found.pinned)
    beside = np.searchsorted(candidates, pinned)
    return Recommendation(
        clusters=user.clusters.tolist(),
        weights=user.weights.tolist(),
        history=[event.item for event in user.events],
        history_kinds=[event.kind for event in user.events],
        history_times=[event.time for event in user.events],
        profile=user.profile,
        items=graph.ids(candidates[logged].tolist()),
        shown=len(slate.shown),
        sources=[retrieve.source_name(bits) for bits in sources[logged].tolist()],
        predicted=predicted[logged].tolist(),
        mean=view.mean[logged].tolist(),
        bonus=view.bonus[logged].tolist(),
        edges=view.edges[logged].tolist(),
        probabilities=slate.probabilities.tolist(),
        candidates=Candidates(graph, candidates, predicted, sources),
        rules=found.hits,
        slate_rules=found.rules,
        greedy=None if slate.greedy is None else slate.greedy.tolist(),
        greedy_mean=None if slate.greedy_mean is None else slate.greedy_mean.tolist(),
        pinned=graph.ids(pinned) if pinned else None,
        pinned_places=fitted(list(found.pinned.values()), len(slate.shown) + len(pinned)) if pinned else None,
        pinned_predicted=predicted[beside].tolist(),
        pinned_mean=view.mean[beside].tolist(),
    )
