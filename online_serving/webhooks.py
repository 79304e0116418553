"""POST /v1/webhooks/segment: calls in Segment's form (track, page, identify, alias; one or a batch), which RudderStack,
Jitsu and others send, too, as events, attributes of users and merges.

What cannot be taken is counted, said in the answer, and not refused: its sender would send it again, for ever.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from feature_store.contracts.errors import InvalidInput, Unavailable
from online_serving import metrics
from online_serving.errors import shortened
from online_serving.event_mapping import SHOP, WebhookSettings
from online_serving.feedback import UNACKNOWLEDGED, FeedbackIntake
from online_serving.schemas import MAX_EVENTS, EventsRequest, Id, UserBody, UserEvent
from online_serving.users import Users
from streaming.settings import RewardSettings

ACCEPTED, PASSED_OVER, REJECTED = "accepted", "passed_over", "rejected"

_MAY_NOT_MERGE = "The call merges a visitor with a user: this needs a key with the scope merge as well."

_identity: TypeAdapter[str] = TypeAdapter(Id)


class _Person(NamedTuple):
    """What a call says of a user. visitor: who they were before; attributes: None, if it says none."""

    user: str
    visitor: str | None
    attributes: dict[str, Any] | None


class SegmentIntake:
    """Takes calls in Segment's form."""

    def __init__(
        self, feedback: FeedbackIntake, users: Users, settings: WebhookSettings, rewards: RewardSettings
    ) -> None:
        self._feedback = feedback
        self._users = users
        self._mapping = settings.segment or SHOP
        self._traits = settings.traits
        self._secret = settings.secret
        self._declared = rewards.weights

    def signed(self, body: bytes, signature: str | None) -> bool:
        """Whether the body is signed with the shared secret, as Segment does it; without a secret all are."""
        if self._secret is None:
            return True
        wanted = hmac.new(self._secret.get_secret_value().encode(), body, hashlib.sha1).hexdigest()
        return hmac.compare_digest(wanted.encode(), (signature or "").encode())

    async def take(self, body: bytes, merges: bool) -> dict[str, Any]:
        """How many calls were accepted and passed over, and why others were rejected. merges: whether its sender may
        merge visitors with users. Raises Unavailable if the log or Redis did not take what it tells: sent again, it
        counts once."""
        outcomes: Counter[str] = Counter()
        reasons: dict[str, None] = {}
        events: list[UserEvent] = []
        people: list[_Person] = []
        for call in _calls(body):
            try:
                found = self._read(call)
                if not merges and any(isinstance(one, _Person) and one.visitor is not None for one in found):
                    raise InvalidInput(_MAY_NOT_MERGE)
            except InvalidInput as error:
                outcomes[REJECTED] += 1
                reasons[str(error)] = None
                continue
            outcomes[ACCEPTED if found else PASSED_OVER] += 1
            events += [one for one in found if isinstance(one, UserEvent)]
            people += [one for one in found if isinstance(one, _Person)]
        await self._send(events)
        for person in people:  # after what they did before
            if person.visitor is not None:
                await self._users.merge(person.user, person.visitor)
            if person.attributes is not None:
                await self._users.describe(person.user, UserBody(attributes=person.attributes))
        for outcome, count in outcomes.items():
            metrics.WEBHOOK.labels(outcome).inc(count)
        return {name: outcomes[name] for name in (ACCEPTED, PASSED_OVER, REJECTED)} | {"reasons": list(reasons)[:10]}

    def _read(self, call: Any) -> "Sequence[UserEvent | _Person]":
        """What a call tells. Raises InvalidInput."""
        kind = call.get("type") if isinstance(call, dict) else None
        if kind == "alias":
            return [_Person(_id(call, "userId"), _id(call, "previousId"), None)]
        if kind == "identify":
            return self._identified(call)
        place = hashlib.blake2b(orjson.dumps(call), digest_size=16).hexdigest()
        found = self._mapping.events(call, place)
        if undeclared := {event.type for event in found} - self._declared.keys():
            raise InvalidInput(f"Event type {shortened(sorted(undeclared)[0])!r} is not declared in rewards.weights.")
        return found

    def _identified(self, call: dict[str, Any]) -> list[_Person]:
        if call.get("userId") is None:  # traits of a visitor
            return []
        user = _id(call, "userId")
        visitor = None if call.get("anonymousId") in (None, user) else _id(call, "anonymousId")
        traits = call.get("traits")
        said = {name: traits[name] for name in self._traits if name in traits} if isinstance(traits, dict) else {}
        if not (visitor or said):
            return []
        try:
            return [_Person(user, visitor, UserBody(attributes=said).attributes if said else None)]
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise InvalidInput(f"Trait {problem['loc'][1]!r}: {problem['msg']}.") from None

    async def _send(self, events: Sequence[UserEvent]) -> None:
        for start in range(0, len(events), MAX_EVENTS):
            batch = EventsRequest(events=list(events[start : start + MAX_EVENTS]))
            if any(told["status"] == UNACKNOWLEDGED for told in await self._feedback.take_events(batch)):
                raise Unavailable("Some events were not acknowledged by the log. Send the call again.")


def _calls(body: bytes) -> list[Any]:
    """The calls of a request; what is no JSON is a call that cannot be read."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return [None]
    batch = content.get("batch") if isinstance(content, dict) else None
    return batch if isinstance(batch, list) else [content]


def _id(call: dict[str, Any], name: str) -> str:
    value = call.get(name)
    try:
        return _identity.validate_python(str(value) if isinstance(value, int) else value, strict=True)
    except ValidationError as error:
        raise InvalidInput(
            f"{name}: {error.errors(include_url=False)[0]['msg']}, and it is {shortened(value)!r}."
        ) from None
