"""POST /v1/feedback and POST /v1/events: what users did into the log, with a status for each."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import ForgedDecision
from feature_store.contracts.events import Feedback
from feature_store.contracts.identity import Keyring
from feature_store.contracts.tracing import current_id
from online_serving import metrics
from online_serving.errors import BrokenRules
from online_serving.event_log import DecisionLog
from online_serving.schemas import EventsRequest, FeedbackEvent, FeedbackRequest, UserEvent
from online_serving.settings import ServingSettings
from streaming.kafka import Appended
from streaming.settings import RewardSettings

ACCEPTED, REJECTED, UNACKNOWLEDGED = "accepted", "rejected", "unacknowledged"


class FeedbackIntake:
    """Takes what users did: checks it, appends it, and says what became of each event."""

    def __init__(
        self, keyring: Keyring, log: DecisionLog, settings: ServingSettings, rewards: RewardSettings, clock: Clock
    ) -> None:
        self._keyring = keyring
        self._log = log
        self._settings = settings
        self._declared = rewards.weights
        self._clock = clock

    async def take(self, body: FeedbackRequest) -> list[dict[str, Any]]:
        """Statuses in the order of the events: accepted (the log acknowledged it), rejected (its decision id was not
        made by this installation) or unacknowledged (send it again; by its event id it counts once).

        The events of one user go into one record, in their order. Raises BrokenRules for an undeclared event type.
        """
        self._check_types(body.events)
        now = self._clock.now_ms()
        statuses: list[dict[str, Any]] = []
        told: dict[int, Feedback] = {}
        for i, event in enumerate(body.events):
            statuses.append({"event_id": event.event_id, "status": ACCEPTED})
            try:
                user = self._keyring.open_decision_id(event.decision_id).user
            except ForgedDecision as error:
                statuses[i] |= {"status": REJECTED, "reason": str(error)}
            else:
                told[i] = _feedback(event, event.decision_id, user, now)
        return await self._append(statuses, told)

    async def take_events(self, body: EventsRequest) -> list[dict[str, Any]]:
        """The same of events that belong to no recommendation; by their event ids they count once for their user."""
        self._check_types(body.events)
        now = self._clock.now_ms()
        statuses: list[dict[str, Any]] = []
        told: dict[int, Feedback] = {}
        for i, event in enumerate(body.events):
            user = self._keyring.user_key(event.user_id)
            statuses.append({"event_id": event.event_id, "status": ACCEPTED})
            told[i] = _feedback(event, self._keyring.no_decision_id(user, event.event_id), user, now)
        return await self._append(statuses, told)

    async def _append(self, statuses: list[dict[str, Any]], told: Mapping[int, Feedback]) -> list[dict[str, Any]]:
        """The statuses, with what became of the events told, by their place."""
        records: dict[str, dict[int, Feedback]] = {}
        for i, event in told.items():
            records.setdefault(event.user, {})[i] = event
        sent = {user: self._log.append(user, list(events.values())) for user, events in records.items()}
        if sent:
            await asyncio.wait(sent.values(), timeout=self._settings.feedback_deadline_ms / 1000)
        for user, appended in sent.items():
            for i in records[user]:
                statuses[i] |= _outcome(appended)
        for status in statuses:
            metrics.FEEDBACK.labels(status["status"]).inc()
        return statuses

    def _check_types(self, events: Sequence[FeedbackEvent | UserEvent]) -> None:
        rule = f"must be one of the declared types: {', '.join(sorted(self._declared))} (rewards.weights)"
        undeclared = [(i, event.type) for i, event in enumerate(events) if event.type not in self._declared]
        if undeclared:
            raise BrokenRules([{"field": f"events.{i}.type", "value": kind, "rule": rule} for i, kind in undeclared])


def _feedback(event: FeedbackEvent | UserEvent, decision: str, user: str, now: int) -> Feedback:
    return Feedback(
        id=event.event_id,
        decision=decision,
        user=user,
        item=event.item_id,
        type=event.type,
        value=event.value,
        time=now if event.time is None else event.time,
        received=now,
        session=event.session_id if isinstance(event, UserEvent) else None,
        trace=current_id(),
    )


def _outcome(appended: "asyncio.Future[Appended]") -> dict[str, Any]:
    if appended.done() and appended.exception() is None:
        place = appended.result()
        return {"partition": place.partition, "offset": place.offset}
    return {"status": UNACKNOWLEDGED, "reason": "The log did not acknowledge it in time. Send it again."}
