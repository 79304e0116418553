"""Looking items up over HTTP: those like one, and the popular ones."""

from typing import Any

from feature_store.contracts.clock import Clock
from online_serving.descriptions import Descriptions
from online_serving.errors import NotFound, broken_rule, check_filter
from online_serving.pipeline.browsing import popular, similar
from online_serving.pipeline.request import Filter, Request
from online_serving.schemas import BrowsingQuery
from online_serving.settings import ServingSettings
from online_serving.state import Current, ServingState


class Browsing:
    """Answers from what serves; the contents are those of a answers.BrowsingAnswer. Every method raises BrokenRules for
    more items than allowed, and Unavailable before the first release is loaded."""

    def __init__(self, current: Current, descriptions: Descriptions, settings: ServingSettings, clock: Clock) -> None:
        self._current = current
        self._descriptions = descriptions
        self._settings = settings
        self._clock = clock

    async def similar(self, item: str, query: BrowsingQuery) -> dict[str, Any]:
        """Items like one. Raises NotFound if answers know nothing of it."""
        state = self._current.state
        position = state.snapshot.position(item)
        if position is None:
            raise NotFound(f"Answers know no item {item!r} yet. Create it with PUT /v1/items/{{id}}.")
        request = self._request(query, (item, *query.exclude))
        return await self._answer(state, similar(state.snapshot, position, request, self._settings), query)

    async def popular(self, query: BrowsingQuery) -> dict[str, Any]:
        """The items that most people liked of late."""
        state = self._current.state
        request = self._request(query, tuple(query.exclude))
        return await self._answer(state, popular(state.snapshot, request, self._settings), query)

    def _request(self, query: BrowsingQuery, exclude: tuple[str, ...]) -> Request:
        count, most = query.count or self._settings.slate_size, self._settings.max_slate_size
        if count > most:
            raise broken_rule("count", count, f"at most serving.max_slate_size = {most}")
        check_filter(query.filter)
        only = Filter(categories=tuple(query.category)) if query.category else None
        return Request(count, Filter(exclude), only, query.filter, time=self._clock.now_ms())

    async def _answer(self, state: ServingState, found: list[str], query: BrowsingQuery) -> dict[str, Any]:
        items: list[dict[str, Any]] = [{"id": item} for item in found]
        described = await self._descriptions.add(items, query.with_)
        return {"release": state.active.release, "degraded": [] if described else ["descriptions"], "items": items}
