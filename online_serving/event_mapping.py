"""Events as other systems write them, JSON of any shape, read as ours by a declared mapping."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from feature_store.contracts.errors import InvalidInput

if TYPE_CHECKING:
    from online_serving.schemas import UserEvent

ANY = "*"  # in `types`: whatever has no other entry
_EACH = "[]"

Paths = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]


class EventMapping(BaseModel):
    """Where a message says what: names with dots between them, `properties.sku`; of several the first that is there.

    `products[].id` is one event for each element of the list; other paths may go through the same list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_id: Paths = Field(description="The user's id, or a visitor's: ['userId', 'anonymousId'].")
    item_id: Paths = Field(description="The item's id.")
    type: Paths = Field(default=("type",), description="What happened, in their words.")
    value: Paths | None = Field(default=None, description="How much of it; nowhere: 1.")
    time: Paths | None = Field(default=None, description="When, ISO 8601 or ms since the epoch; nowhere: now.")
    event_id: Paths | None = Field(
        default=None, description="What counts once however often it comes; nowhere: its place in the topic."
    )
    session_id: Paths | None = Field(default=None, description="The visit.")
    types: dict[str, str] = Field(
        default={},
        description="Their words: our event type. {'*' = 'click'} is for all others; without it they are passed over. "
        "Empty: theirs are ours.",
    )

    def events(self, message: Any, place: str) -> "list[UserEvent]":
        """What a message tells, nothing if its type is passed over. place: the id of its event if it says none. Raises
        InvalidInput naming what is missing or breaks a rule."""
        from online_serving.schemas import MAX_EVENTS  # and numpy with it, which who reads settings can do without

        if not isinstance(message, dict):
            raise InvalidInput(f"A message is to be a JSON object, and this is a {type(message).__name__}.")
        theirs = _text(_first(message, self.type, None))
        word = theirs if isinstance(theirs, str) else ""
        kind = self.types.get(word, self.types.get(ANY)) if self.types else theirs
        if kind is None:
            if self.types:
                return []
            raise InvalidInput(f"Nothing at {' or '.join(self.type)}: what happened?")
        path, elements = next(
            ((path, found) for path in self.item_id if (found := _elements(message, path))), (self.item_id[0], [None])
        )
        if len(elements) > MAX_EVENTS:
            raise InvalidInput(f"{path} has {len(elements)} elements, at most {MAX_EVENTS} are taken. Send fewer.")
        identity = _text(_first(message, self.event_id, None)) or place
        return [
            self._event(message, element, kind, f"{identity}/{n}" if _EACH in path else identity)
            for n, element in enumerate(elements)
        ]

    def _event(self, message: dict[str, Any], element: Any, kind: str, identity: str) -> "UserEvent":
        from online_serving.schemas import UserEvent

        time, value = (_first(message, paths, element) for paths in (self.time, self.value))
        said = {
            "user_id": _text(_first(message, self.user_id, element)),
            "item_id": _text(_first(message, self.item_id, element)),
            "type": kind,
            "event_id": identity,
            "session_id": _text(_first(message, self.session_id, element)),
            "time": _milliseconds(time),
            "value": 1.0 if value is None else value,
        }
        try:
            return UserEvent.model_validate(said)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            (field,) = problem["loc"]
            where = " or ".join(getattr(self, str(field), None) or (str(field),))
            raise InvalidInput(f"{field}, from {where}: {problem['msg']}, and it is {problem['input']!r}.") from None


# Segment's names for what happens in a shop.
SHOP = EventMapping(
    user_id=("userId", "anonymousId"),
    item_id=("properties.products[].product_id", "properties.product_id"),
    type=("event", "type"),
    time=("timestamp",),
    event_id=("messageId",),
    types={
        "Product Clicked": "click",
        "Product Viewed": "click",
        "Product Added": "click",
        "Product Added to Wishlist": "like",
        "Order Completed": "purchase",
    },
)


class WebhookSettings(BaseModel):
    """What POST /v1/webhooks/segment makes of calls in Segment's form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    segment: EventMapping | None = Field(
        default=None,
        description="Where a track or page call says what, as the table [events] in a file of `matchloop connect`; "
        "empty: Segment's names of what happens in a shop.",
    )
    traits: tuple[str, ...] = Field(
        default=(),
        description="Traits of identify calls that are kept as attributes of users: nothing that names a person, for "
        "log and lake have them, too.",
    )
    secret: SecretStr | None = Field(
        default=None,
        description="The shared secret with which Segment signs what it sends: calls without its signature are "
        "refused, whatever their key; empty: none is asked for.",
    )


def _first(message: dict[str, Any], paths: Sequence[str] | None, element: Any) -> Any:
    """What is at the first of the paths at which there is something. element: of the list that events are made of."""
    found = (
        _at(element, path.partition(_EACH)[2].removeprefix(".")) if _EACH in path else _at(message, path)
        for path in paths or ()
    )
    return next((value for value in found if value is not None), None)


def _elements(message: dict[str, Any], path: str) -> list[Any]:
    """What an item's path makes events of: the elements of its list, None without one, or nothing at all."""
    before, each, after = path.partition(_EACH)
    if not each:
        return [] if _at(message, path) is None else [None]
    listed = _at(message, before)
    return [one for one in listed if _at(one, after.removeprefix(".")) is not None] if isinstance(listed, list) else []


def _at(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> Any:
    """Ids may be numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            return value
        return int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)
    return value
