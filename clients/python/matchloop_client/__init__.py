"""Recommendations from MatchLoop, and what users did with them: `Client`, and `AsyncClient` for asyncio."""

from matchloop_client.answers import (
    BrokenRule,
    BrowsingAnswer,
    DescribedItem,
    EventStatus,
    Explanation,
    FeedbackAnswer,
    ItemsAnswer,
    ItemsPage,
    LevelsOfEstimate,
    RecommendationAnswer,
    RecommendationsAnswer,
    RecommendedItem,
    ServedItem,
    StoredItem,
    StoredUser,
)
from matchloop_client.batches import AsyncEventBatch, EventBatch
from matchloop_client.clients import AsyncClient, Client
from matchloop_client.errors import ApiError, MatchLoopError, NoAnswer, NotFound
from matchloop_client.requests import Boosting, FeedbackEvent, Filter, Item, RecommendationRequest, UserEvent

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncEventBatch",
    "Boosting",
    "BrokenRule",
    "BrowsingAnswer",
    "Client",
    "DescribedItem",
    "EventBatch",
    "EventStatus",
    "Explanation",
    "FeedbackAnswer",
    "FeedbackEvent",
    "Filter",
    "Item",
    "ItemsAnswer",
    "ItemsPage",
    "LevelsOfEstimate",
    "MatchLoopError",
    "NoAnswer",
    "NotFound",
    "RecommendationAnswer",
    "RecommendationRequest",
    "RecommendationsAnswer",
    "RecommendedItem",
    "ServedItem",
    "StoredItem",
    "StoredUser",
    "UserEvent",
]
