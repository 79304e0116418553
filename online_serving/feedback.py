"""POST /v1/feedback: events into the log, with a status for each."""

import asyncio
from typing import Any

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import ForgedDecision
from feature_store.contracts.events import Feedback
from feature_store.contracts.identity import Keyring
from online_serving import metrics
from online_serving.errors import BrokenRules
from online_serving.event_log import DecisionLog
from online_serving.schemas import FeedbackEvent, FeedbackRequest
from online_serving.settings import ServingSettings
from streaming.kafka import Appended
from streaming.settings import RewardSettings

ACCEPTED, REJECTED, UNACKNOWLEDGED = "accepted", "rejected", "unacknowledged"


class FeedbackIntake:
    """Takes feedback: checks it, appends it, and says what became of each event."""

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
        places: dict[str, list[int]] = {}
        records: dict[str, list[Feedback]] = {}
        for i, event in enumerate(body.events):
            statuses.append({"event_id": event.event_id, "status": ACCEPTED})
            try:
                user = self._keyring.open_decision_id(event.decision_id).user
            except ForgedDecision as error:
                statuses[i] |= {"status": REJECTED, "reason": str(error)}
                continue
            places.setdefault(user, []).append(i)
            records.setdefault(user, []).append(_feedback(event, user, now))
        sent = {user: self._log.append(user, events) for user, events in records.items()}
        if sent:
            await asyncio.wait(sent.values(), timeout=self._settings.feedback_deadline_ms / 1000)
        for user, appended in sent.items():
            for i in places[user]:
                statuses[i] |= _outcome(appended)
        for status in statuses:
            metrics.FEEDBACK.labels(status["status"]).inc()
        return statuses

    def _check_types(self, events: list[FeedbackEvent]) -> None:
        rule = f"must be one of the declared types: {', '.join(sorted(self._declared))} (rewards.weights)"
        undeclared = [(i, event.type) for i, event in enumerate(events) if event.type not in self._declared]
        if undeclared:
            raise BrokenRules([{"field": f"events.{i}.type", "value": kind, "rule": rule} for i, kind in undeclared])


def _feedback(event: FeedbackEvent, user: str, now: int) -> Feedback:
    return Feedback(
        id=event.event_id,
        decision=event.decision_id,
        user=user,
        item=event.item_id,
        type=event.type,
        value=event.value,
        time=now if event.time is None else event.time,
        received=now,
    )


def _outcome(appended: "asyncio.Future[Appended]") -> dict[str, Any]:
    if appended.done() and appended.exception() is None:
        place = appended.result()
        return {"partition": place.partition, "offset": place.offset}
    return {"status": UNACKNOWLEDGED, "reason": "The log did not acknowledge it in time. Send it again."}
