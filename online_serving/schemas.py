"""Bodies of HTTP requests. What does not fit is answered 422, naming field, value and rule."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from feature_store.contracts.catalogue import MAX_ATTRIBUTES, MAX_CATEGORIES, MAX_ID_CHARACTERS, MAX_TITLE_CHARACTERS
from feature_store.contracts.events import MAX_VALUE
from feature_store.shown import ENTRY_BYTES
from online_serving.expressions import MAX_CHARACTERS
from online_serving.settings import MAX_CAPS, MAX_PINS, Boosted, Cap, Diversity, Place

MAX_BODY_BYTES = 1_000_000
MAX_NAMED_ITEMS = 5_000
MAX_EVENTS = 1_000
MAX_ITEMS = 1_000
MAX_REQUESTS = 100
_MAX_TEXT = 1_000
_INT64 = 2**63


def _without_fraction(value: Any) -> Any:
    """JSON has one kind of number, and 5.0 is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = BeforeValidator(_without_fraction)  # behind the Field: its limits are then in the schema
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Integer = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Attributes = Annotated[dict[Name, bool | Integer | Number | Text], Field(max_length=MAX_ATTRIBUTES)]
MS = "Milliseconds since the epoch, UTC."
Milliseconds = Annotated[int, Field(ge=0, lt=2**47, description=MS), _Whole]


Wanted = Annotated[list[Name], Field(max_length=MAX_ATTRIBUTES)]
_WITH = "What else to say of each item: `title`, `categories`, and names of attributes."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FilterBody(_Body):
    """A set of items: those named and those of the categories named."""

    items: list[Id] = Field(default=[], max_length=MAX_NAMED_ITEMS)
    categories: list[Name] = Field(default=[], max_length=MAX_CATEGORIES)


def _list_means_items(value: Any) -> Any:
    return {"items": value} if isinstance(value, list) else value


FilterField = Annotated[FilterBody, BeforeValidator(_list_means_items, json_schema_input_type=FilterBody | list[Id])]

_EXPRESSIONS = ['price < 20 and category in ["shoes", "hats"]']
_MAX_BOOSTS = 10
Expression = Annotated[
    str | None,
    Field(
        max_length=MAX_CHARACTERS,
        description='Nothing but what this describes: `price < 20 and (category in ["shoes", "hats"] or has(label))`, '
        "with `<`, `<=`, `>`, `>=`, `==`, `!=`, `in`, `not in`, `and`, `or`, `not` and `has(name)` over categories and "
        'attributes; `attributes["list price"]` where a name is no word. No comparison holds for items without the '
        "attribute.",
        examples=_EXPRESSIONS,
    ),
]


_NOTHING: JsonDict = {"default": {}}  # said in the schema, and made anew: Pydantic takes longer to copy a default


class RecommendationRequest(_Body):
    """Whom to recommend to, and under which rules."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "42", "slate_size": 5, "surface": "home", "with": ["title", "year"], "explain": True},
                {"user_id": "42", "caps": {"category": 2}, "pins": {"50": 1}, "diversity": 0.3},
            ]
        },
    )

    user_id: Id = Field(description="Your id of the user. Unknown users are accepted.")
    slate_size: Annotated[int, Field(ge=1), _Whole] | None = Field(
        default=None, description="Items wanted; the server's default if left out."
    )
    surface: str = Field(default="default", min_length=1, max_length=100, description="Where the slate will be shown.")
    context: Attributes = Field(
        default_factory=dict,
        json_schema_extra=_NOTHING,
        description="User attributes as of now; they take the place of stored ones of the same name.",
    )
    exclude: FilterField = Field(
        default_factory=FilterBody,
        json_schema_extra={"default": {"items": [], "categories": []}},
        description="Never these: item ids, or items and categories.",
    )
    only: FilterField | None = Field(default=None, description="Nothing but these: item ids, or items and categories.")
    filter: Expression = None
    boosts: dict[Annotated[str, Field(max_length=MAX_CHARACTERS)], Boosted] = Field(
        default_factory=dict,
        json_schema_extra=_NOTHING,
        max_length=_MAX_BOOSTS,
        description='What estimates are multiplied by of items that a filter describes: {"has(label)": 1.5}, or '
        '{"has(label)": {"factor": 3, "since": 1790000000000, "half_life_hours": 24}}, which fades. Before '
        "exploration: the probabilities are those of the boosted order.",
        examples=[{"has(label)": 1.5, "price > 100": {"factor": 0.5, "until": 1790000000000}}],
    )
    caps: dict[Name, Annotated[Cap, _Whole]] = Field(
        default_factory=dict,
        json_schema_extra=_NOTHING,
        max_length=MAX_CAPS,
        description="At most so many items of the answer with the same value of an attribute; `category` is each of an "
        "item's categories. What has no such attribute is not counted. The answer may be shorter for it.",
        examples=[{"category": 2, "brand": 1}],
    )
    pins: dict[Id, Annotated[Place, _Whole]] = Field(
        default_factory=dict,
        json_schema_extra=_NOTHING,
        max_length=MAX_PINS,
        description="Items and their places in the answer, from 1, whatever they are estimated at, and however often "
        "they were shown; not where they are unavailable or another rule of the request takes them out. The bandit "
        "learns nothing of them.",
        examples=[{"50": 1}],
    )
    diversity: Diversity | None = Field(
        default=None,
        description="From 0 to 1: how much of its estimate an item loses for being like one of the answer already.",
    )
    with_: Wanted = Field(default_factory=list, json_schema_extra={"default": []}, alias="with", description=_WITH)
    cursor: str = Field(
        default="",
        pattern=f"^([0-9a-f]{{{2 * ENTRY_BYTES}}})*$",
        max_length=2 * ENTRY_BYTES * MAX_NAMED_ITEMS,
        description="`next` of an earlier answer: nothing comes again that it and the ones before it showed.",
    )
    explain: bool = Field(default=False, description="Adds what led to each item.")


class PreviewRequest(RecommendationRequest):
    """What would be recommended, and under which rules."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "slate_size": 5, "only": ["50"]}]})

    explain: bool = Field(default=True, description="Adds what led to each item.")
    repeat_shown: bool = Field(default=False, description="Items that were shown to the user before are wanted, too.")


class RecommendationsRequest(_Body):
    """Several requests at once, of one user or of many."""

    requests: list[RecommendationRequest] = Field(min_length=1, max_length=MAX_REQUESTS)


class BrowsingQuery(BaseModel):
    """Which items to look up, and how many."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int | None = Field(default=None, ge=1, description="Items wanted; the server's default if left out.")
    category: list[Name] = Field(default=[], max_length=MAX_CATEGORIES, description="Nothing but these.")
    exclude: list[Id] = Field(default=[], max_length=MAX_CATEGORIES, description="Ids of items: never these.")
    filter: Expression = None
    with_: Wanted = Field(default=[], alias="with", description=_WITH)


class _Event(_Body):
    """One thing that a user did with one item."""

    item_id: Id
    type: Name = Field(description="One of the types declared in the settings: view, click, ...")
    value: float = Field(
        default=1.0,
        ge=-MAX_VALUE,
        le=MAX_VALUE,
        allow_inf_nan=False,
        description="Watch time, rating, price ...; multiplied with the type's weight, or held against its threshold.",
    )
    time: Milliseconds | None = Field(default=None, description="When it happened, ms since the epoch; default: now.")
    event_id: Id = Field(description="Your id of the event: sent twice, it counts once.")


class FeedbackEvent(_Event):
    """One thing that a user did with one item of a decision."""

    decision_id: Annotated[str, Field(min_length=1, max_length=500)]


class UserEvent(_Event):
    """One thing that a user did with one item, wherever they found it."""

    user_id: Id = Field(description="Your id of the user. Unknown users are accepted, and visitors without an account.")
    session_id: Id | None = Field(default=None, description="Your id of the visit. It is kept in the lake.")


class FeedbackRequest(_Body):
    """A batch of events, of one user or of many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"events": [{"decision_id": "...", "item_id": "50", "type": "click", "event_id": "e-1"}]}]
        }
    )

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class EventsRequest(_Body):
    """A batch of events that belong to no recommendation, of one user or of many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"events": [{"user_id": "42", "item_id": "50", "type": "purchase", "event_id": "order-7"}]}]
        }
    )

    events: list[UserEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class ItemBody(_Body):
    """What is known about an item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "Toy Story (1995)",
                    "categories": ["Animation", "Comedy"],
                    "attributes": {"year": 1995},
                    "available_from": 1790000000000,
                    "available_until": 1800000000000,
                }
            ]
        }
    )

    title: str = Field(default="", max_length=MAX_TITLE_CHARACTERS)
    categories: list[Name] = Field(default=[], max_length=MAX_CATEGORIES)
    attributes: Attributes = {}
    available: bool = Field(default=True, description="False takes the item out of answers and keeps what was learnt.")
    available_from: Milliseconds | None = Field(
        default=None, description=f"Not shown before. {MS}", examples=[1790000000000]
    )
    available_until: Milliseconds | None = Field(
        default=None, description=f"Not shown from then on. {MS}", examples=[1800000000000]
    )

    @model_validator(mode="after")
    def _window_is_one(self) -> Self:
        if (self.available_from or 0) >= (self.available_until or _INT64):
            raise ValueError(
                f"available_from {self.available_from} is not before available_until {self.available_until}: the item "
                "would never be shown. Say available = false instead."
            )
        return self


class ItemWithId(ItemBody):
    """An item of a batch."""

    id: Id


class ItemsRequest(_Body):
    """A batch of items."""

    items: list[ItemWithId] = Field(min_length=1, max_length=MAX_ITEMS)


class PageQuery(BaseModel):
    """Where to go on in a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=100, ge=1, le=MAX_ITEMS, description="About how many; it may be more or fewer.")
    cursor: int = Field(default=0, ge=0, lt=2**64, description="`next` of the page before.")


class DecisionsQuery(BaseModel):
    """Which decisions to list, and where to go on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=20, ge=1, le=MAX_REQUESTS, description="At most so many; it may be fewer, or none.")
    cursor: str = Field(default="", max_length=_MAX_TEXT, description="`next` of the page before.")
    user_id: Id | None = Field(default=None, description="Decisions for this user alone.")


class MergeBody(_Body):
    """Who a user was before they were known."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"visitor_id": "visit-81"}]})

    visitor_id: Id = Field(description="The id under which they came, and under which events were sent.")


class UserBody(_Body):
    """What is known about a user beside their history."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"attributes": {"age": 31, "country": "NZ"}}]})

    attributes: Attributes = {}
