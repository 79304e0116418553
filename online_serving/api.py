"""The HTTP routes of the API; those for operators are in operation.py. Bodies are read and written without FastAPI's
own (slower) way; it routes and documents."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from msgspec.structs import asdict
from starlette.convertors import PathConvertor, register_url_convertor

from feature_store.contracts.catalogue import MAX_ID_CHARACTERS
from feature_store.contracts.clock import Clock
from online_serving.answers import (
    BrowsingAnswer,
    DecisionsPage,
    ErrorAnswer,
    FeedbackAnswer,
    FeedbackErrorAnswer,
    ItemsAnswer,
    ItemsPage,
    RecommendationAnswer,
    RecommendationsAnswer,
    ServedItem,
    StoredItem,
    StoredUser,
    UsersPage,
    WebhookAnswer,
)
from online_serving.auth import may
from online_serving.bodies import answer, content, read
from online_serving.browsing import Browsing
from online_serving.catalogue import Catalogue
from online_serving.decision_pages import DecisionPages
from online_serving.errors import broken_rule, error_answer
from online_serving.feedback import REJECTED, UNACKNOWLEDGED, FeedbackIntake
from online_serving.keys import Scope
from online_serving.openapi import any_object, body
from online_serving.readiness import Readiness
from online_serving.recommendations import Recommender
from online_serving.schemas import (
    BrowsingQuery,
    DecisionsQuery,
    EventsRequest,
    FeedbackRequest,
    ItemBody,
    ItemsRequest,
    MergeBody,
    PageQuery,
    RecommendationRequest,
    RecommendationsRequest,
    UserBody,
)
from online_serving.state import Current
from online_serving.users import Users
from online_serving.webhooks import SegmentIntake

DIRECT = frozenset({"/v1/recommendations", "/v1/feedback"})  # paths of the routes for direct.Direct

ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "A field breaks a rule; details name field, value and rule."},
    503: {"model": ErrorAnswer, "description": "A part of the system does not answer. Try again."},
}
_UNREAD = {status: said for status, said in ERRORS.items() if status != 413}  # of what has no body
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "No item with this id."}}

_UNACKNOWLEDGED: dict[str, Any] = {
    "model": FeedbackErrorAnswer,
    "description": "Events were not acknowledged: send those again. Without a list of events: send all.",
}

# The length is described here and checked by _identity: a broken rule is answered as one of a body.
Identity = Annotated[str, Path(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_CHARACTERS})]

_CALL = {
    "type": "track",
    "event": "Product Viewed",
    "userId": "42",
    "properties": {"product_id": "50"},
    "messageId": "m-1",
    "timestamp": "2026-01-31T12:00:00Z",
}


class _IdentityConvertor(PathConvertor):
    """The rest of the path, line breaks included: `.*` would end before one, and name another item or user."""

    regex = r"[\s\S]*"


register_url_convertor("identity", _IdentityConvertor())


class Services:
    """What the routes call. Filled when the process has started."""

    clock: Clock
    current: Current
    recommender: Recommender
    browsing: Browsing
    feedback: FeedbackIntake
    catalogue: Catalogue
    users: Users
    segment: SegmentIntake
    decisions: DecisionPages
    readiness: Readiness | None = None  # before that

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """As Readiness.check; not ready before the process has started."""
        if self.readiness is None:
            return False, {"ready": False, "loading": True, "problems": {"process": "It is starting."}}
        return await self.readiness.check()


def _identity(value: str) -> str:
    if not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise broken_rule("id", value, f"must have 1 to {MAX_ID_CHARACTERS} characters")
    return value


def _taken(events: list[dict[str, Any]]) -> Response:
    """The answer to events, with their statuses."""
    if any(event["status"] == UNACKNOWLEDGED for event in events):
        message = "Some events were not acknowledged by the log. Send those again."
        return answer({"error": "unavailable", "message": message, "events": events}, 503)
    return answer({"events": events}, 202)


def routes(services: Services) -> APIRouter:
    """All routes of the API."""
    api = APIRouter()
    _add_recommending(api, services)
    _add_events(api, services)
    _add_items(api, services)
    _add_users(api, services)
    return api


def _add_recommending(api: APIRouter, services: Services) -> None:
    @api.post(
        "/v1/recommendations",
        tags=["recommendations"],
        summary="Recommend items to a user",
        responses={200: {"model": RecommendationAnswer}, **ERRORS},
        openapi_extra=body(RecommendationRequest),
    )
    async def recommend(request: Request) -> Response:
        return answer(await services.recommender.answer(await read(request, RecommendationRequest)))

    @api.post(
        "/v1/recommendations:batch",
        tags=["recommendations"],
        summary="Recommend items to several users",
        description="As that many requests, for mails and pages with several slates.",
        responses={200: {"model": RecommendationsAnswer}, **ERRORS},
        openapi_extra=body(RecommendationsRequest),
    )
    async def recommend_many(request: Request) -> Response:
        asked = await read(request, RecommendationsRequest)
        return answer({"answers": await services.recommender.answer_all(asked.requests)})

    @api.get(
        "/v1/decisions",
        tags=["recommendations"],
        summary="List what was decided, page by page",
        description="As the lake has it, a minute late. A page reads one file: it may be empty, and have a next.",
        responses={200: {"model": DecisionsPage}, **_UNREAD},
    )
    async def list_decisions(query: Annotated[DecisionsQuery, Query()]) -> Response:
        return answer(await services.decisions.page(query))


def _add_events(api: APIRouter, services: Services) -> None:
    @api.post(
        "/v1/feedback",
        tags=["recommendations"],
        summary="Say what users did with recommended items",
        description="Answered when the log has acknowledged the events. On the embedded broker, which keeps its topics "
        "in memory, that holds for the broker's lifetime.",
        status_code=202,
        responses={
            202: {"model": FeedbackAnswer},
            **ERRORS,
            404: {
                "model": FeedbackErrorAnswer,
                "description": "No event of the batch belongs to a decision made here.",
            },
            503: _UNACKNOWLEDGED,
        },
        openapi_extra=body(FeedbackRequest),
    )
    async def send_feedback(request: Request) -> Response:
        events = await services.feedback.take(await read(request, FeedbackRequest))
        if all(event["status"] == REJECTED for event in events):
            message = "No event belongs to a decision made here. " + events[0]["reason"]
            return answer({"error": "unknown_decision", "message": message, "events": events}, 404)
        return _taken(events)

    @api.post(
        "/v1/events",
        tags=["recommendations"],
        summary="Say what users did, wherever they found the items",
        description="Purchases, plays and ratings that belong to no recommendation. They are in the user's history "
        "within a second and in the next training, and the bandit takes none of them for a trial. "
        "Answered as feedback is.",
        status_code=202,
        responses={202: {"model": FeedbackAnswer}, **ERRORS, 503: _UNACKNOWLEDGED},
        openapi_extra=body(EventsRequest),
    )
    async def send_events(request: Request) -> Response:
        return _taken(await services.feedback.take_events(await read(request, EventsRequest)))

    @api.post(
        "/v1/webhooks/segment",
        tags=["recommendations"],
        summary="Take calls in Segment's form",
        description="Of one call or a `batch`: track and page calls are events, as `webhooks.segment` maps them; "
        "identify and alias calls merge a visitor with their user, for which the key needs the scope `merge` as well, "
        "and tell attributes, `webhooks.traits`. What cannot be taken is counted and said, and not refused, so that "
        "nobody sends it again for ever. With `webhooks.secret` set, what X-Signature does not sign is refused.",
        status_code=202,
        responses={202: {"model": WebhookAnswer}, **ERRORS},
        openapi_extra=any_object(_CALL),
    )
    async def take_segment(request: Request) -> Response:
        sent = await content(request)
        if not services.segment.signed(sent, request.headers.get("x-signature")):
            return error_answer(401, "unauthorised", "X-Signature does not sign the body with webhooks.secret.")
        return answer(await services.segment.take(sent, may(request.scope, Scope.MERGE)), 202)


def _add_items(api: APIRouter, services: Services) -> None:
    @api.get(
        "/v1/popular",
        tags=["recommendations"],
        summary="The items that most people liked of late",
        responses={200: {"model": BrowsingAnswer}, **_UNREAD},
    )
    async def list_popular(query: Annotated[BrowsingQuery, Query()]) -> Response:
        return answer(await services.browsing.popular(query))

    @api.get(
        "/v1/items/{id:identity}/similar",
        tags=["recommendations"],
        summary="Items like one",
        description="Those that people went to from it, and then those whose vectors are near.",
        responses={200: {"model": BrowsingAnswer}, **_UNREAD, **_NOT_FOUND},
    )
    async def list_similar(
        request: Request,
        id: Identity,  # noqa: A002 - the name in the path
        query: Annotated[BrowsingQuery, Query()],
    ) -> Response:
        if not request.scope["raw_path"].endswith(b"/similar"):  # the end of an id, with its slash encoded
            return await get_item(f"{id}/similar")
        return answer(await services.browsing.similar(_identity(id), query))

    @api.put(
        "/v1/items/{id:identity}",
        tags=["catalogue"],
        summary="Create or replace an item",
        responses={200: {"model": StoredItem}, 201: {"model": StoredItem}, **ERRORS},
        openapi_extra=body(ItemBody),
    )
    async def put_item(request: Request, id: Identity) -> Response:  # noqa: A002 - the name in the path
        item, created = await services.catalogue.put(_identity(id), await read(request, ItemBody))
        return answer(asdict(item), 201 if created else 200)

    @api.get(
        "/v1/items",
        tags=["catalogue"],
        summary="List the items, page by page",
        responses={200: {"model": ItemsPage}, **_UNREAD},
    )
    async def list_items(query: Annotated[PageQuery, Query()]) -> Response:
        items, behind = await services.catalogue.page(query.cursor, query.count)
        return answer({"items": [asdict(item) for item in items], "next": str(behind) if behind else None})

    @api.get(
        "/v1/items/{id:identity}",
        tags=["catalogue"],
        summary="Read an item",
        responses={200: {"model": ServedItem}, **ERRORS, **_NOT_FOUND},
    )
    async def get_item(id: Identity) -> Response:  # noqa: A002 - the name in the path
        item = await services.catalogue.get(_identity(id))
        return answer({**asdict(item), "servable": services.current.serves(item.id, services.clock.now_ms())})

    @api.delete(
        "/v1/items/{id:identity}",
        tags=["catalogue"],
        summary="Delete an item",
        status_code=204,
        responses={**ERRORS, **_NOT_FOUND},
    )
    async def delete_item(id: Identity) -> Response:  # noqa: A002
        await services.catalogue.delete(_identity(id))
        return Response(status_code=204)

    @api.post(
        "/v1/items:batch",
        tags=["catalogue"],
        summary="Create or replace many items",
        description="Of items with the same id the last one counts.",
        responses={200: {"model": ItemsAnswer}, **ERRORS},
        openapi_extra=body(ItemsRequest),
    )
    async def put_items(request: Request) -> Response:
        created, replaced = await services.catalogue.put_all(await read(request, ItemsRequest))
        return answer({"created": created, "replaced": replaced})


def _add_users(api: APIRouter, services: Services) -> None:
    @api.put(
        "/v1/users/{id:identity}",
        tags=["users"],
        summary="Replace what is known about a user",
        status_code=204,
        responses=ERRORS,
        openapi_extra=body(UserBody),
    )
    async def put_user(request: Request, id: Identity) -> Response:  # noqa: A002
        await services.users.describe(_identity(id), await read(request, UserBody))
        return Response(status_code=204)

    @api.post(
        "/v1/users/{id:identity}:merge",
        tags=["users"],
        summary="Say that a visitor was this user",
        description="At login: what the visitor did and was shown until now is the user's, in answers at once and in "
        "training from the next retrain on. Sent twice, it is done once. Under the visitor's id somebody new may come.",
        status_code=204,
        responses=ERRORS,
        openapi_extra=body(MergeBody),
    )
    async def merge_user(request: Request, id: Identity) -> Response:  # noqa: A002 - the name in the path
        await services.users.merge(_identity(id), (await read(request, MergeBody)).visitor_id)
        return Response(status_code=204)

    @api.get(
        "/v1/users",
        tags=["users"],
        summary="List the users of whom something is stored, page by page",
        description="By their pseudonyms, as in log and lake: ids are kept nowhere.",
        responses={200: {"model": UsersPage}, **_UNREAD},
    )
    async def list_users(query: Annotated[PageQuery, Query()]) -> Response:
        users, behind = await services.users.page(query.cursor, query.count)
        listed = [{"key": key, **held._asdict()} for key, held in users]
        return answer({"users": listed, "next": str(behind) if behind else None})

    @api.get(
        "/v1/users/{id:identity}",
        tags=["users"],
        summary="Read what is stored of a user",
        responses={200: {"model": StoredUser}, **ERRORS, **_NOT_FOUND},
    )
    async def get_user(id: Identity) -> Response:  # noqa: A002
        held = await services.users.get(_identity(id))
        return answer({"id": id, **held._asdict()})

    @api.delete(
        "/v1/users/{id:identity}",
        tags=["users"],
        summary="Forget a user",
        description="Profile, history and shown items are gone at once, from training with the next retrain, and from "
        "lake and namespaces when they are rewritten, within `lake.forget_within_days`.",
        status_code=204,
        responses=ERRORS,
    )
    async def erase_user(id: Identity) -> Response:  # noqa: A002
        await services.users.erase(_identity(id))
        return Response(status_code=204)
