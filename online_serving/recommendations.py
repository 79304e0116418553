"""POST /v1/recommendations, from the request to the answer."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
import redis

from feature_store.contracts.catalogue import attribute_tokens
from feature_store.contracts.clock import Clock
from feature_store.contracts.identity import Keyring
from feature_store.contracts.tracing import current_id
from feature_store.online.store import AsyncOnlineStore
from feature_store.shown import ENTRY_BYTES, Shown, pack
from feature_store.user_features import NOBODY, UserFeatures
from online_serving import metrics
from online_serving.answer_paths import AnswerPath, AnswerPaths
from online_serving.decisions import DecisionAppender, Provenance, build
from online_serving.descriptions import Descriptions
from online_serving.errors import Overloaded, broken_rule, check_filter
from online_serving.experiments import Treated
from online_serving.expressions import both
from online_serving.last_seen import LastSeen
from online_serving.overload import WorkQueue
from online_serving.pipeline.explore import Levels
from online_serving.pipeline.pipeline import unexplored
from online_serving.pipeline.request import Filter, Recommendation, Request
from online_serving.schemas import MAX_NAMED_ITEMS, FilterBody, PreviewRequest, RecommendationRequest
from online_serving.settings import ServingSettings, Surface, contested
from online_serving.shadow import Asked, Shadow
from online_serving.state import Current
from online_serving.treatments import Treatment

_log = logging.getLogger(__name__)

_NO_PRESET = Surface()
_AT_ONCE = 16  # requests of a batch: others get their turns
_OF_ONE_USER = 32  # requests at once: they wait for each other ...
_IN_OVERLOAD = 2  # ... which takes long while everything does


class UserLocks:
    """One lock per user with a request in flight, so that two requests at once do not show the same item twice."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def holding(self, user: str, most: int = _OF_ONE_USER) -> AsyncIterator[None]:
        """Waits for the user's other requests in this process. Raises Overloaded if that many are there."""
        lock, holders = self._locks.get(user, (asyncio.Lock(), 0))
        if holders >= most:
            raise Overloaded(f"{holders} requests of this user are in flight. Send it again in a second.")
        self._locks[user] = (lock, holders + 1)
        try:
            async with lock:
                yield
        finally:
            lock, holders = self._locks.pop(user)
            if holders > 1:
                self._locks[user] = (lock, holders - 1)

    def __len__(self) -> int:
        return len(self._locks)


class Recommender:
    """Answers recommendation requests from memory, one round trip to Redis, and one to the log."""

    def __init__(
        self,
        treated: Treated,
        keyring: Keyring,
        online: AsyncOnlineStore,
        decisions: DecisionAppender,
        queue: WorkQueue,
        settings: ServingSettings,
        clock: Clock,
        rng: np.random.Generator,
        last_seen: LastSeen,
        shadow: Shadow | None = None,
    ) -> None:
        self._treated = treated
        self._keyring = keyring
        self._online = online
        self._descriptions = Descriptions(online.catalogue)
        self._decisions = decisions
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._last_seen = last_seen
        self._shadow = shadow
        self._locks = UserLocks()
        self._paths = AnswerPaths()

    async def answer(self, body: RecommendationRequest, key: str | None = None) -> dict[str, Any]:
        """The content of a answers.RecommendationAnswer. key: of a user whose id nobody knows, in the place of the
        body's. Raises InvalidInput for a slate larger than allowed and Unavailable before the first release is
        loaded."""
        began = time.perf_counter()
        user = key or self._keyring.user_key(body.user_id)
        treatment, current = self._treated.of(user)
        request = self._request(body, treatment.slate_size)
        async with self._locks.holding(user, _OF_ONE_USER if self._queue.calm else _IN_OVERLOAD):
            content = await self._decide(user, treatment, current, request, body.explain, began)
        return await self._described(content, body)

    async def answer_all(self, bodies: Sequence[RecommendationRequest]) -> list[dict[str, Any]]:
        """The answers to requests, in their order. Raises as answer does, before anything is answered."""
        for number, body in enumerate(bodies):
            self._check(body, f"requests.{number}.")
        answers: list[dict[str, Any]] = []
        for first in range(0, len(bodies), _AT_ONCE):
            answers += await asyncio.gather(*map(self.answer, bodies[first : first + _AT_ONCE]))
        return answers

    async def preview(self, body: PreviewRequest, key: str | None = None) -> dict[str, Any]:
        """The content of a answers.PreviewAnswer: what is estimated best now. It is no decision, and leaves no trace.
        key, and what it raises: as answer."""
        user = key or self._keyring.user_key(body.user_id)
        treatment, current = self._treated.of(user)
        degraded: list[str] = []
        features, known = await self._features(user, degraded)
        if body.repeat_shown:
            features = features._replace(shown=NOBODY.shown)
        request = self._request(body, treatment.slate_size)
        async with self._queue.turn():
            state, now = current.state, self._clock.now_ms()
            request = replace(request, time=now)
            pipeline = treatment.pipeline.greedy()
            made = self._paths.recommend(pipeline, state, request, features, known, self._rng)
            found, levels = made.recommendation, None
            content = {
                "variant": treatment.label,
                "release": state.active.release,
                "path": made.path.value,
                "degraded": degraded,
                "parameter_offsets": state.parameters.offsets,
                "items": _items(found),
            }
            if body.explain:
                if made.by_bandit:
                    levels = pipeline.levels(state.snapshot, state.parameters.table(now), request, found)
                _explained(content, found, levels)
        return await self._described(content, body)

    async def _described(self, content: dict[str, Any], body: RecommendationRequest) -> dict[str, Any]:
        """The content of an answer with what the request wants to know of its items."""
        if not await self._descriptions.add(content["items"], body.with_):
            content["degraded"].append("descriptions")
            metrics.DEGRADED.labels("descriptions").inc()
        return content

    async def _decide(
        self, user: str, treatment: Treatment, current: Current, request: Request, explain: bool, began: float
    ) -> dict[str, Any]:
        degraded: list[str] = []
        started = time.perf_counter()
        features, known = await self._features(user, degraded)
        async with self._queue.turn() as at_once:
            state = current.state  # one reference for the whole decision; nothing below waits before it is made
            now = self._clock.now_ms()
            request = replace(request, time=now)
            made = self._paths.recommend(treatment.pipeline, state, request, features, known, self._rng)
            recommendation, learns = made.recommendation, treatment.learns and made.by_bandit
            made_with = Provenance(*state.active, state.parameters.offsets, treatment.label, learns, made.path.value)
            levels = None
            if explain and made.by_bandit:  # now: the table changes with what is learnt meanwhile
                table = state.parameters.table(now)
                levels = treatment.pipeline.levels(state.snapshot, table, request, recommendation)
            decision_id = self._keyring.decision_id(user, now)
            sampled = self._rng.random() < self._settings.candidate_log_share
            took = (time.perf_counter() - began) * 1000
            surface, trace = request.surface, current_id()
            decision = build(decision_id, user, now, surface, made_with, recommendation, sampled, took, trace)
        logged = await self._decisions.logged(decision)
        if not logged:
            degraded.append("log")
            decision_id = self._keyring.decision_id(user, now, logged=False)
            recommendation, levels = unexplored(recommendation, request.slate_size), None
        elif self._shadow is not None and made.by_bandit:
            champion = state.active.release
            self._shadow.offer(
                Asked(decision_id, user, request, features, treatment.pipeline, champion, recommendation)
            )
        shown = pack((item, now) for item in recommendation.answered)
        if treatment.remembers_shown:
            await self._remember(user, shown, degraded)
        if at_once:
            self._queue.usual(time.perf_counter() - started)
        metrics.of_variant(treatment.label).inc()
        metrics.PLACES.labels(treatment.label).inc(recommendation.shown)
        metrics.EXPLORED.labels(treatment.label).inc(recommendation.explored)
        metrics.of_path(made.path.value).inc()
        for part in degraded:
            metrics.DEGRADED.labels(part).inc()
        content = {
            "decision_id": decision_id,
            "variant": treatment.label,
            "release": state.active.release,
            "logged": logged,
            "path": made.path.value,
            "degraded": degraded,
            "parameter_offsets": made_with.offsets,
            "items": _items(recommendation),
            "next": _next(request, shown),
        }
        return _explained(content, recommendation, levels) if explain else content

    def _request(self, body: RecommendationRequest, slate_size: int) -> Request:
        self._check(body)
        preset = self._settings.surfaces.get(body.surface, _NO_PRESET)
        size = body.slate_size or preset.slate_size or slate_size
        return Request(
            slate_size=size,
            exclude=_filter(body.exclude),
            only=None if body.only is None else _filter(body.only),
            context=tuple(attribute_tokens(body.context)),
            surface=body.surface,
            where=both(preset.filter, body.filter),
            boosts=tuple((preset.boosts | body.boosts).items()),
            caps=tuple((preset.caps | body.caps).items()),
            pins=_pins(preset.pins, body.pins, size),
            diversity=preset.diversity if body.diversity is None else body.diversity,
            before=Shown(bytes.fromhex(body.cursor)),
        )

    def _check(self, body: RecommendationRequest, where: str = "") -> None:
        check_filter(body.filter, f"{where}filter")
        for expression in body.boosts:
            check_filter(expression, f"{where}boosts")
        if problem := contested(body.pins):
            raise broken_rule(f"{where}pins", dict(body.pins), problem)
        if body.slate_size is not None and body.slate_size > self._settings.max_slate_size:
            rule = f"at most serving.max_slate_size = {self._settings.max_slate_size}"
            raise broken_rule(f"{where}slate_size", body.slate_size, rule)

    async def _features(self, user: str, degraded: list[str]) -> tuple[UserFeatures, AnswerPath]:
        try:
            found = await self._online.users.get(user)
        except (redis.RedisError, OSError) as error:
            _log.warning("answering without user features: %r", error)
            degraded.append("user_features")
            seen = self._last_seen.of(user)
            return (NOBODY, AnswerPath.SEGMENT) if seen is None else (seen, AnswerPath.CACHED_USER)
        self._last_seen.keep(user, found)
        return found, AnswerPath.FULL

    async def _remember(self, user: str, shown: bytes, degraded: list[str]) -> None:
        """Marks a slate, packed, as shown before it is: the user's next request may be on its way already.

        After the log, not beside it: a slate that the log did not take in time is never shown.
        """
        try:
            await self._online.users.mark_shown(user, shown)
        except (redis.RedisError, OSError) as error:
            _log.warning("a slate could not be marked as shown: %r", error)
            degraded.append("shown_items")
            self._last_seen.shown(user, shown)


def _filter(body: FilterBody) -> Filter:
    return Filter(tuple(body.items), tuple(body.categories))


def _pins(preset: Mapping[str, int], asked: Mapping[str, int], slate_size: int) -> tuple[tuple[str, int], ...]:
    """Items and their places, as far as the slate reaches; what is asked for goes before what a surface has."""
    taken = set(asked.values())
    kept = {item: place for item, place in preset.items() if item not in asked and place not in taken}
    return tuple((item, place) for item, place in {**kept, **asked}.items() if place <= slate_size)


def _next(request: Request, shown: bytes) -> str | None:
    """The cursor behind a slate, packed; None if the rules left no more, or a cursor would hold too many items."""
    packed = request.before.packed + shown
    if len(shown) < request.slate_size * ENTRY_BYTES or len(packed) > MAX_NAMED_ITEMS * ENTRY_BYTES:
        return None
    return packed.hex()


def _items(r: Recommendation) -> list[dict[str, Any]]:
    drawn = [
        {"id": r.items[i], "position": place, "score": r.mean[i], "source": r.sources[i],
         "probability": r.probabilities[i]}
        for i, place in enumerate(r.places)
    ]  # fmt: skip
    pinned = [
        {"id": item, "position": place, "score": mean, "source": "pinned", "probability": 1.0}
        for item, place, mean in zip(r.pinned or (), r.pinned_places or (), r.pinned_mean, strict=True)
    ]
    return sorted(drawn + pinned, key=itemgetter("position"))


def _explained(content: dict[str, Any], r: Recommendation, levels: Levels | None) -> dict[str, Any]:
    """The content of an answer with what led to each item, and what the rules took out."""
    numbers = dict(zip(r.places, range(r.shown), strict=True))
    pins = dict(zip(r.pinned_places or (), range(len(r.pinned_mean)), strict=True))
    for item in content["items"]:
        i = numbers.get(item["position"])
        if i is None:
            pin = pins[item["position"]]
            predicted, mean = r.pinned_predicted[pin], r.pinned_mean[pin]
            item["explanation"] = {"predicted": predicted, "mean": mean, "bonus": 0.0, "clusters": {}, "levels": None}
            continue
        connected = [k for k in range(len(r.clusters)) if r.edges[i] >> k & 1]
        item["explanation"] = {
            "predicted": r.predicted[i],
            "mean": r.mean[i],
            "bonus": r.bonus[i],
            "clusters": {str(r.clusters[k]): r.weights[k] for k in connected},
            "levels": levels and _level(levels, i, r, connected),
        }
    content["rules"] = r.rules
    return content


def _level(levels: Levels, i: int, r: Recommendation, connected: Sequence[int]) -> dict[str, Any]:
    return {
        "group": float(levels.group[i]),
        "item": float(levels.item[i]),
        "edges": {str(r.clusters[k]): float(levels.edges[k, i]) for k in connected},
        "deviation": float(levels.deviation[i]),
        "trials": float(levels.trials[i]),
        "reward": float(levels.reward[i]),
        "optimism": float(levels.optimism[i]),
        "boost": float(levels.boost[i]),
    }
