"""What the API tells Prometheus."""

import functools
import time

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FAST = [0.0001 * 2**i for i in range(14)]  # 0.1 ms to 0.8 s
_SLOW = [0.001 * 2**i for i in range(14)]  # 1 ms to 8 s

REQUESTS = Counter("matchloop_http_requests", "HTTP requests, by route and status", ["route", "status"])
LATENCY = Histogram("matchloop_http_seconds", "Time from request to answer, by route", ["route"], buckets=_FAST)
IN_FLIGHT = Gauge("matchloop_http_in_flight", "Requests being worked on, at most serving.max_in_flight")
REFUSED = Counter("matchloop_http_refused", "Requests refused unseen because the process was too busy", ["kind"])
TURN = Histogram("matchloop_turn_seconds", "Time that a recommendation waited for its turn", buckets=_FAST)
STAGE = Histogram("matchloop_stage_seconds", "Time of one stage of the pipeline", ["stage"], buckets=_FAST)
DECISIONS = Counter("matchloop_decisions", "Recommendations answered, by experiments and variants", ["variant"])
PLACES = Counter("matchloop_places", "Places of slates, by experiments and variants", ["variant"])
EXPLORED = Counter(
    "matchloop_explored_places", "Places whose item did not have the highest estimate of those left", ["variant"]
)
ANSWERS = Counter("matchloop_answers", "Recommendations answered, by path: full, or plainer ones", ["path"])
EXPERIMENTS = Gauge("matchloop_experiments", "Experiments that this process assigns users to")
EXPERIMENTS_REFUSED = Gauge("matchloop_experiments_refused", "Experiments that cannot run here; the log says why")
DEGRADED = Counter("matchloop_degraded", "Recommendations answered without one of their parts", ["part"])
UNLOGGED = Counter("matchloop_decisions_unlogged", "Answers without exploration because the log was slow")
LATE = Counter(
    "matchloop_decisions_late", "Decisions that the log took, or may have taken, after their users got another answer"
)
LOG_STALLED = Gauge(
    "matchloop_log_stalled_seconds", "How long a partition has owed this process an acknowledgement", ["partition"]
)
APPEND = Histogram("matchloop_append_seconds", "Time until the log acknowledged a record", buckets=_FAST)
FEEDBACK = Counter("matchloop_feedback_events", "Feedback events, by what became of them", ["status"])
WEBHOOK = Counter("matchloop_webhook_calls", "Calls in Segment's form, by what became of them", ["outcome"])
PROPAGATION = Histogram(
    "matchloop_parameter_propagation_seconds", "From the commit of bandit parameters to their use here", buckets=_SLOW
)
PARAMETER_TIME = Gauge(
    "matchloop_parameter_commit_timestamp_seconds", "When the parameters in use were committed", ["partition"]
)
PARAMETER_OFFSET = Gauge("matchloop_parameter_offset", "Log offset folded into the parameters in use", ["partition"])
PRIOR_FIT = Histogram("matchloop_prior_fit_seconds", "Time of one fit of the prior, in a thread", buckets=_SLOW)
ITEMS = Gauge("matchloop_items", "Items that can be recommended")
UNREADABLE_ITEMS = Gauge(
    "matchloop_catalogue_unreadable_items", "Entries of the catalogue that cannot be served, and are left out"
)
CATALOGUE_GAPS = Counter(
    "matchloop_catalogue_gaps", "Times when changes of the catalogue were lost and all of it was read anew"
)
SWAPS = Counter("matchloop_swaps", "Changes of the serving release, by outcome", ["outcome"])
SHADOW = Counter(
    "matchloop_shadow_requests", "Requests for a release that answers unseen, by what became of them", ["outcome"]
)
LOOP_LAG = Histogram(
    "matchloop_api_loop_lag_seconds", "How late the event loop came to a task that was due", buckets=_FAST
)


# Looked up once: a request observes a dozen.
_of_stage = functools.cache(STAGE.labels)
of_variant = functools.cache(DECISIONS.labels)
of_path = functools.cache(ANSWERS.labels)
_of_route = functools.cache(LATENCY.labels)
_of_answer = functools.cache(REQUESTS.labels)


class Stage:
    """Times a stage of the pipeline that is entered."""

    __slots__ = ("_started", "_timed")

    def __init__(self, name: str) -> None:
        self._timed = _of_stage(name)

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timed.observe(time.perf_counter() - self._started)


class Measured:
    """Counts and times requests by route (never by path: ids would make endless label values)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            _of_answer(route, str(status)).inc()
            _of_route(route).observe(time.perf_counter() - started)
