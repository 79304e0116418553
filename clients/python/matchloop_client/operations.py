"""The operations of the API, called as in its description. Each becomes a method of both clients; `self` is the client.

Arguments left out are not sent, and mean the API's defaults.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Optional, Union
from urllib.parse import quote

from matchloop_client.answers import (
    BrowsingAnswer,
    DecisionsPage,
    FeedbackAnswer,
    ItemsAnswer,
    ItemsPage,
    RecommendationAnswer,
    RecommendationsAnswer,
    ServedItem,
    StoredItem,
    StoredUser,
    UsersPage,
    Value,
)
from matchloop_client.calls import Call
from matchloop_client.requests import Boosting, FeedbackEvent, Filter, Item, RecommendationRequest, UserEvent, content

_NOTHING = type(None)


def recommend(
    self: object,
    user_id: str,
    *,
    slate_size: Optional[int] = None,
    surface: Optional[str] = None,
    context: Optional[Mapping[str, Value]] = None,
    exclude: Union[Filter, Sequence[str], None] = None,
    only: Union[Filter, Sequence[str], None] = None,
    filter: Optional[str] = None,
    boosts: Optional[Mapping[str, Union[float, Boosting]]] = None,
    caps: Optional[Mapping[str, int]] = None,
    pins: Optional[Mapping[str, int]] = None,
    diversity: Optional[float] = None,
    with_: Optional[Sequence[str]] = None,
    cursor: Optional[str] = None,
    explain: Optional[bool] = None,
) -> Call[RecommendationAnswer]:
    """Items for a user, who may be unknown.

    slate_size: how many. surface: where they will be shown. context: attributes of the user as of now. exclude, only:
    ids of items, or a Filter. filter: an expression, `price < 20 and category == "shoes"`. boosts: what estimates are
    multiplied by of the items that an expression describes, for a while if it is a Boosting. caps: at most so many
    items with the same value of an attribute, or of `category`. pins: items and their places, from 1. diversity: from 0
    to 1, how much an item loses for being like another of the answer. with_: what to say of each item: `title`,
    `categories`, and names of attributes. cursor: `next` of the page before. explain: adds what led to each item.

    Not sent again when the answer was lost: each answer counts as shown.
    """
    request = RecommendationRequest(
        user_id, slate_size, surface, context, exclude, only, filter, boosts, caps, pins, diversity, with_, cursor,
        explain,
    )  # fmt: skip
    return Call("POST", "/v1/recommendations", RecommendationAnswer, content(request), repeatable=False)


def recommend_many(self: object, requests: Iterable[RecommendationRequest]) -> Call[RecommendationsAnswer]:
    """Items for up to 100 requests, of one user or of many: for mails, and for pages with several slates."""
    body = {"requests": [content(request) for request in requests]}
    return Call("POST", "/v1/recommendations:batch", RecommendationsAnswer, body, repeatable=False)


def send_feedback(self: object, *events: FeedbackEvent) -> Call[FeedbackAnswer]:
    """Says what users did with recommended items: 1 to 1,000 events. It returns when the log has them.

    Raises NotFound, with the status of each event, if none of them belongs to a decision of this API. Where some
    do not, these are `rejected`.
    """
    return Call("POST", "/v1/feedback", FeedbackAnswer, {"events": [content(event) for event in events]})


def send_events(self: object, *events: UserEvent) -> Call[FeedbackAnswer]:
    """Says what users did wherever they found the items: 1 to 1,000 events."""
    return Call("POST", "/v1/events", FeedbackAnswer, {"events": [content(event) for event in events]})


def list_popular(
    self: object,
    *,
    count: Optional[int] = None,
    category: Sequence[str] = (),
    exclude: Sequence[str] = (),
    filter: Optional[str] = None,
    with_: Sequence[str] = (),
) -> Call[BrowsingAnswer]:
    """The items that most people liked of late; of some categories, if these are named."""
    return Call("GET", "/v1/popular", BrowsingAnswer, query=_browsing(count, category, exclude, filter, with_))


def list_similar(
    self: object,
    id: str,
    *,
    count: Optional[int] = None,
    category: Sequence[str] = (),
    exclude: Sequence[str] = (),
    filter: Optional[str] = None,
    with_: Sequence[str] = (),
) -> Call[BrowsingAnswer]:
    """Items like one. Raises NotFound."""
    query = _browsing(count, category, exclude, filter, with_)
    return Call("GET", _path("items", id) + "/similar", BrowsingAnswer, query=query)


def list_items(self: object, *, count: Optional[int] = None, cursor: Optional[str] = None) -> Call[ItemsPage]:
    """A page of the catalogue: about `count` items, from `next` of the page before on."""
    return Call("GET", "/v1/items", ItemsPage, query=_given(count=count, cursor=cursor))


def get_item(self: object, id: str) -> Call[ServedItem]:
    """An item as stored. Raises NotFound."""
    return Call("GET", _path("items", id), ServedItem)


def put_item(
    self: object,
    id: str,
    *,
    title: str = "",
    categories: Sequence[str] = (),
    attributes: Optional[Mapping[str, Value]] = None,
    available: bool = True,
    available_from: Optional[int] = None,
    available_until: Optional[int] = None,
) -> Call[StoredItem]:
    """Creates or replaces an item. One that is not available stays out of answers, as does one before `available_from`
    and from `available_until` on (ms since the epoch); what was learnt of it stays."""
    body = content(Item(id, title, categories, attributes or {}, available, available_from, available_until))
    del body["id"]
    return Call("PUT", _path("items", id), StoredItem, body)


def put_items(self: object, items: Iterable[Item]) -> Call[ItemsAnswer]:
    """Creates or replaces 1 to 1,000 items."""
    return Call("POST", "/v1/items:batch", ItemsAnswer, {"items": [content(item) for item in items]})


def delete_item(self: object, id: str) -> Call[None]:
    """Deletes an item. Raises NotFound, also where an attempt whose answer was lost has deleted it."""
    return Call("DELETE", _path("items", id), _NOTHING)


def list_decisions(
    self: object, *, user_id: Optional[str] = None, count: Optional[int] = None, cursor: Optional[str] = None
) -> Call[DecisionsPage]:
    """Some decisions of the lake, for one user or for all, from `next` of the page before on."""
    query = _given(user_id=user_id, count=count, cursor=cursor)
    return Call("GET", "/v1/decisions", DecisionsPage, query=query)


def list_users(self: object, *, count: Optional[int] = None, cursor: Optional[str] = None) -> Call[UsersPage]:
    """Some users of whom something is stored, from `next` of the page before on."""
    return Call("GET", "/v1/users", UsersPage, query=_given(count=count, cursor=cursor))


def get_user(self: object, id: str) -> Call[StoredUser]:
    """What is stored of a user. Raises NotFound."""
    return Call("GET", _path("users", id), StoredUser)


def put_user(self: object, id: str, *, attributes: Mapping[str, Value]) -> Call[None]:
    """Replaces what is known about a user beside their history."""
    return Call("PUT", _path("users", id), _NOTHING, {"attributes": content(attributes)})


def merge_user(self: object, id: str, *, visitor_id: str) -> Call[None]:
    """Says that a visitor was this user, at login: what they did and were shown is the user's. The key needs the scope
    `merge`, which the key of a page should not have."""
    return Call("POST", _path("users", id) + ":merge", _NOTHING, {"visitor_id": visitor_id})


def erase_user(self: object, id: str) -> Call[None]:
    """Forgets a user."""
    return Call("DELETE", _path("users", id), _NOTHING)


def _path(kind: str, identity: str) -> str:
    """Ids may be anything, `..` included."""
    return f"/v1/{kind}/{quote(identity, safe='').replace('.', '%2E')}"


def _browsing(
    count: Optional[int],
    category: Sequence[str],
    exclude: Sequence[str],
    expression: Optional[str],
    with_: Sequence[str],
) -> dict[str, object]:
    given = _given(count=count, filter=expression)
    return {**given, "category": list(category), "exclude": list(exclude), "with": list(with_)}


def _given(**query: object) -> dict[str, object]:
    return {name: value for name, value in query.items() if value is not None}
