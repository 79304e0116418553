"""What goes into requests. Fields are called as in the API's description (/openapi.json); those left out are not sent,
and mean the API's defaults."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Optional, Union

from matchloop_client.answers import Value


def _new_id() -> str:
    return uuid.uuid4().hex


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Filter:
    """A set of items: those named and those of the categories named."""

    items: Sequence[str] = ()
    categories: Sequence[str] = ()


@dataclass(frozen=True)
class Boosting:
    """What estimates are multiplied by, for a while: between two times, in ms since the epoch. Its distance from 1
    halves in `half_life_hours`, from `since` on."""

    factor: float
    since: Optional[int] = None
    until: Optional[int] = None
    half_life_hours: Optional[float] = None


@dataclass(frozen=True)
class RecommendationRequest:
    """Whom to recommend to, and under which rules."""

    user_id: str
    slate_size: Optional[int] = None
    surface: Optional[str] = None
    context: Optional[Mapping[str, Value]] = None
    exclude: Union[Filter, Sequence[str], None] = None
    only: Union[Filter, Sequence[str], None] = None
    filter: Optional[str] = None
    boosts: Optional[Mapping[str, Union[float, Boosting]]] = None
    caps: Optional[Mapping[str, int]] = None
    pins: Optional[Mapping[str, int]] = None
    diversity: Optional[float] = None
    with_: Optional[Sequence[str]] = None
    cursor: Optional[str] = None
    explain: Optional[bool] = None


@dataclass(frozen=True)
class FeedbackEvent:
    """One thing that a user did with one item of a decision.

    The id is made with the event: however often it is sent, it counts once. `time` is in ms since the epoch.
    """

    decision_id: str
    item_id: str
    type: str
    value: float = 1.0
    time: int = field(default_factory=_now)
    event_id: str = field(default_factory=_new_id)


@dataclass(frozen=True)
class UserEvent:
    """One thing that a user did with one item, wherever they found it. Id and time as in FeedbackEvent."""

    user_id: str
    item_id: str
    type: str
    value: float = 1.0
    session_id: Optional[str] = None
    time: int = field(default_factory=_now)
    event_id: str = field(default_factory=_new_id)


@dataclass(frozen=True)
class Item:
    """An item of the catalogue. One that is not available stays out of answers, as does one before `available_from` and
    from `available_until` on, in ms since the epoch; what was learnt of it stays."""

    id: str
    title: str = ""
    categories: Sequence[str] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    available: bool = True
    available_from: Optional[int] = None
    available_until: Optional[int] = None


def content(said: Any) -> Any:
    """The classes of this module as values of JSON, without what is None; `with_` is called `with`."""
    if is_dataclass(said):
        found = {one.name: getattr(said, one.name) for one in fields(said)}
        return {name.rstrip("_"): content(value) for name, value in found.items() if value is not None}
    if isinstance(said, Mapping):
        return {name: content(value) for name, value in said.items()}
    return list(said) if isinstance(said, Sequence) and not isinstance(said, str) else said
