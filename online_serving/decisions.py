"""Decisions: answered only when the log has them, or answered without exploration."""

import asyncio
from typing import NamedTuple

from feature_store.contracts.errors import Unacknowledged, Unavailable
from feature_store.contracts.events import Decision, Withdrawal
from online_serving.event_log import DecisionLog
from online_serving.metrics import LATE, UNLOGGED
from online_serving.pipeline.request import Recommendation
from streaming.kafka import Appended

_STALLED_DEADLINES = 3
_RETRY_SECONDS = 1.0


class Provenance(NamedTuple):
    """What a decision was made with, beside the request."""

    release: str
    namespace: str
    offsets: list[int]  # of the parameters in use, one per partition
    variant: str  # contracts.experiments.label
    learns: bool  # whether the decision trains the bandit
    path: str = "full"  # answer_paths.AnswerPath


def build(
    decision_id: str,
    user: str,
    time: int,
    surface: str,
    made_with: Provenance,
    recommendation: Recommendation,
    with_candidates: bool,
    latency_ms: float | None = None,
    trace: str | None = None,
) -> Decision:
    """The decision as the log records it. user: the user's key; time: ms since the epoch.
    latency_ms: what it took since the request. trace: id of the request's."""
    return Decision(
        id=decision_id,
        user=user,
        time=time,
        surface=surface,
        release=made_with.release,
        namespace=made_with.namespace,
        variant=made_with.variant,
        learns=made_with.learns,
        path=made_with.path,
        offsets=made_with.offsets,
        candidates=recommendation.candidates.ids() if with_candidates else None,
        latency_ms=latency_ms,
        trace=trace,
        **recommendation.columns(),
    )


class DecisionAppender:
    """Appends decisions, and withdraws those whose users got another answer."""

    def __init__(self, log: DecisionLog, deadline_ms: float) -> None:
        self._log = log
        self._deadline = deadline_ms / 1000
        self._withdrawing: set[asyncio.Task[None]] = set()

    async def logged(self, decision: Decision) -> bool:
        """Whether the log acknowledged the decision within the deadline.

        Nothing is sent while the decision's partition has owed an acknowledgement for several deadlines: what arrives
        in a stalled log later counts as shown, although its user got another answer, until it is withdrawn.
        """
        if self._log.stalled_seconds(decision.user) <= _STALLED_DEADLINES * self._deadline:
            sent = self._log.append(decision.user, [decision])
            # Not asyncio.timeout: an acknowledgement that has come while the event loop was busy counts as in time.
            await asyncio.wait([sent], timeout=self._deadline)
            if sent.done() and sent.exception() is None:
                return True
            task = asyncio.create_task(self._withdraw(decision, sent))
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)
        UNLOGGED.inc()
        return False

    async def close(self) -> None:
        """Gives up what could not be withdrawn yet."""
        for task in self._withdrawing:
            task.cancel()
        await asyncio.gather(*self._withdrawing, return_exceptions=True)

    async def _withdraw(self, decision: Decision, sent: "asyncio.Future[Appended]") -> None:
        """A record that was sent cannot be called back: what came too late, or may still come, is withdrawn."""
        await asyncio.wait([sent])
        if sent.exception() is not None and not isinstance(sent.exception(), Unacknowledged):
            return  # it was not sent
        LATE.inc()
        withdrawal = Withdrawal(decision=decision.id, user=decision.user, time=decision.time)
        while True:
            try:
                await self._log.append(decision.user, [withdrawal])
                return
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS)
