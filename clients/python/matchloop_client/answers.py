"""What the API answers. Classes and fields are called as in its description (/openapi.json, where they are explained);
what a newer API says beside them is left out."""

from dataclasses import dataclass, is_dataclass
from functools import cache
from typing import Any, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

Value = Union[bool, int, float, str]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class DescribedItem:
    """An item, and what was asked for of it."""

    id: str
    title: Optional[str] = None
    categories: Optional[list[str]] = None
    attributes: Optional[dict[str, Value]] = None


@dataclass(frozen=True)
class BrowsingAnswer:
    """Items that were looked up, the best first."""

    release: str
    degraded: list[str]
    items: list[DescribedItem]


@dataclass(frozen=True)
class LevelsOfEstimate:
    """How an estimate comes about."""

    group: float
    item: float
    edges: dict[str, float]
    deviation: float
    trials: float
    reward: float
    optimism: float
    boost: float


@dataclass(frozen=True)
class Explanation:
    """Why an item is where it is."""

    predicted: float
    mean: float
    bonus: float
    clusters: dict[str, float]
    levels: Optional[LevelsOfEstimate]


@dataclass(frozen=True)
class RecommendedItem:
    """One item of a slate; position 1 is the first."""

    id: str
    position: int
    score: float
    source: str
    probability: float
    title: Optional[str] = None
    categories: Optional[list[str]] = None
    attributes: Optional[dict[str, Value]] = None
    explanation: Optional[Explanation] = None


@dataclass(frozen=True)
class RecommendationAnswer:
    """A slate. `decision_id` goes back with feedback, `next` is the cursor of the next page."""

    decision_id: str
    items: list[RecommendedItem]
    logged: bool
    next: Optional[str]
    variant: str
    release: str
    path: str
    degraded: list[str]
    parameter_offsets: list[int]
    rules: Optional[dict[str, int]] = None


@dataclass(frozen=True)
class RecommendationsAnswer:
    """One answer per request, in the order sent."""

    answers: list[RecommendationAnswer]


@dataclass(frozen=True)
class EventStatus:
    """What became of one event: accepted, rejected or unacknowledged."""

    event_id: str
    status: str
    reason: Optional[str] = None
    partition: Optional[int] = None
    offset: Optional[int] = None


@dataclass(frozen=True)
class FeedbackAnswer:
    """One status per event, in the order sent."""

    events: list[EventStatus]


@dataclass(frozen=True)
class StoredItem:
    """An item as stored. Times are ms since the epoch."""

    id: str
    title: str
    categories: list[str]
    attributes: dict[str, Value]
    available: bool
    available_from: Optional[int]
    available_until: Optional[int]


@dataclass(frozen=True)
class ServedItem(StoredItem):
    """An item as stored, and whether the process that answered can recommend it."""

    servable: bool


@dataclass(frozen=True)
class ItemsPage:
    """Some items of the catalogue, and the cursor of the next page."""

    items: list[StoredItem]
    next: Optional[str]


@dataclass(frozen=True)
class ItemsAnswer:
    """What became of a batch of items."""

    created: int
    replaced: int


@dataclass(frozen=True)
class StoredUser:
    """What is stored of a user. Times are ms since the epoch."""

    id: str
    profile: list[str]
    profile_time: Optional[int]
    history: int
    history_time: Optional[int]
    shown: int


@dataclass(frozen=True)
class ListedUser:
    """What is stored of some user, by their pseudonym. Times are ms since the epoch."""

    key: str
    profile: list[str]
    profile_time: Optional[int]
    history: int
    history_time: Optional[int]
    shown: int


@dataclass(frozen=True)
class UsersPage:
    """Some users, none perhaps, and the cursor of the next page."""

    users: list[ListedUser]
    next: Optional[str]


@dataclass(frozen=True)
class ListedDecision:
    """An answered request as the lake has it. The lists run parallel to `items`, the slate in its order."""

    id: str
    user: str
    time: int
    surface: str
    release: str
    namespace: str
    variant: str
    learns: bool
    path: Optional[str]
    items: list[str]
    predicted: list[float]
    mean: list[float]
    bonus: list[float]
    probabilities: list[float]
    pinned: list[str]


@dataclass(frozen=True)
class DecisionsPage:
    """Some decisions, none perhaps, and the cursor of the next page."""

    decisions: list[ListedDecision]
    next: Optional[str]


@dataclass(frozen=True)
class BrokenRule:
    """What is wrong with one field of a request."""

    field: str
    value: Any
    rule: str


def read(kind: type[Answer], content: Any) -> Answer:
    """JSON's values as a class of this module. Raises TypeError where they do not fit."""
    answer: Answer = _read(kind, content)
    return answer


def _read(kind: Any, content: Any) -> Any:
    arguments = get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(content, dict):
            raise TypeError(f"{kind.__name__} is {content!r}")
        return kind(**{name: _read(inner, content[name]) for name, inner in _fields(kind).items() if name in content})
    if get_origin(kind) is list:
        return [_read(arguments[0], one) for one in content]
    if get_origin(kind) is Union and is_dataclass(arguments[0]):  # Optional[...]
        return None if content is None else _read(arguments[0], content)
    return content


@cache
def _fields(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
