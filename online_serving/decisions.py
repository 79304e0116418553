"""Decisions: answered only when the log has them, or answered without exploration."""

import asyncio
from functools import partial
from typing import NamedTuple

from feature_store.contracts.events import Decision, Withdrawal
from feature_store.contracts.experiments import BanditMode, Variant
from online_serving.event_log import DecisionLog
from online_serving.metrics import LATE, UNLOGGED
from online_serving.pipeline.request import Recommendation
from streaming.kafka import Appended


class Provenance(NamedTuple):
    """What a decision was made with, beside the request."""

    release: str
    namespace: str
    offsets: list[int]  # of the parameters in use, one per partition
    variant: Variant


def build(
    decision_id: str,
    user: str,
    time: int,
    surface: str,
    made_with: Provenance,
    recommendation: Recommendation,
    with_candidates: bool,
) -> Decision:
    """The decision as the log records it. user: the user's key; time: ms since the epoch."""
    r = recommendation
    return Decision(
        id=decision_id,
        user=user,
        time=time,
        surface=surface,
        release=made_with.release,
        namespace=made_with.namespace,
        variant=made_with.variant.name,
        learns=made_with.variant.bandit is not BanditMode.OFF,
        offsets=made_with.offsets,
        clusters=r.clusters,
        weights=r.weights,
        history=r.history,
        history_kinds=r.history_kinds,
        history_times=r.history_times,
        profile=r.profile,
        items=r.items,
        shown=r.shown,
        sources=r.sources,
        predicted=r.predicted,
        mean=r.mean,
        bonus=r.bonus,
        edges=r.edges,
        probabilities=r.probabilities,
        candidates=r.candidates if with_candidates else None,
    )


async def logged(log: DecisionLog, decision: Decision, deadline_ms: float) -> bool:
    """Whether the log acknowledged the decision within the deadline.

    While an older record still waits beyond the deadline nothing is sent: the log is stalled, and a decision that
    arrives in it later would count as shown although its user got another answer.
    """
    deadline = deadline_ms / 1000
    if log.stalled_seconds <= deadline:
        sent = log.append(decision.user, [decision])
        # Not asyncio.timeout: an acknowledgement that has come while the event loop was busy counts as in time.
        await asyncio.wait([sent], timeout=deadline)
        if sent.done():
            if sent.exception() is None:
                return True
        else:
            sent.add_done_callback(partial(_withdraw, log, decision))
    UNLOGGED.inc()
    return False


def _withdraw(log: DecisionLog, decision: Decision, sent: "asyncio.Future[Appended]") -> None:
    """A record that was sent cannot be called back: what came too late is withdrawn behind it."""
    if not sent.cancelled() and sent.exception() is None:
        LATE.inc()
        log.append(decision.user, [Withdrawal(decision=decision.id, user=decision.user, time=decision.time)])
