"""In which order an answer becomes plainer when parts fail. Every answer says its path; so do the log and a metric."""

import logging
import time
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from feature_store.contracts.errors import MatchLoopError
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Recommendation, Request, UserFeatures
from online_serving.state import ServingState

_log = logging.getLogger(__name__)

_QUIET_SECONDS = 10.0  # between two complaints of models that fail request after request


class AnswerPath(StrEnum):
    """How an answer was made; the first is the best."""

    FULL = "full"
    WITHOUT_RANKER = "without_ranker"  # the ranker fails: by nearness to the user, without the bandit
    CACHED_USER = "cached_user"  # Redis fails: with what it last said of the user
    SEGMENT = "popular_in_segment"  # the same, and the user has not come of late: as a stranger of the same context
    POPULAR = "popular"  # the models fail: what many like


_ORDER = list(AnswerPath)


class Made(NamedTuple):
    """A slate, and how it was made."""

    recommendation: Recommendation
    path: AnswerPath
    by_bandit: bool  # whether the bandit may learn from it: its predictions are probabilities


class AnswerPaths:
    """Makes slates in the best way that works."""

    def __init__(self) -> None:
        self._complained = float("-inf")

    def recommend(
        self,
        pipeline: Pipeline,
        state: ServingState,
        request: Request,
        user: UserFeatures,
        known: AnswerPath,
        rng: np.random.Generator,
    ) -> Made:
        """known: FULL, or how the features were found. request: with its time. Probabilities are those of the path that
        was taken."""
        best = self._tried(pipeline, state, request, user, rng)
        if best is not None:
            return Made(best, known, True)
        plainer = self._tried(pipeline.without_ranker(), state, request, user, rng)
        if plainer is not None:
            return Made(plainer, max(known, AnswerPath.WITHOUT_RANKER, key=_ORDER.index), False)
        return Made(pipeline.popular(state.snapshot, request, user), AnswerPath.POPULAR, False)

    def _tried(
        self, pipeline: Pipeline, state: ServingState, request: Request, user: UserFeatures, rng: np.random.Generator
    ) -> Recommendation | None:
        assert request.time is not None
        try:
            return pipeline.recommend(state.snapshot, state.parameters.table(request.time), request, user, rng)
        except MatchLoopError:  # the request is at fault
            raise
        except Exception:  # noqa: BLE001 - a plainer answer is better than none; matchloop_answers counts it
            self._complain(state.active.release)
            return None

    def _complain(self, release: str) -> None:
        now = time.monotonic()
        if now - self._complained > _QUIET_SECONDS:
            self._complained = now
            _log.exception("a model of release %s failed, requests are answered in a plainer way", release)
