"""The route that says what would be recommended."""

from fastapi import APIRouter, Request, Response

from online_serving.answers import PreviewAnswer
from online_serving.api import ERRORS, Services
from online_serving.bodies import answer, read
from online_serving.openapi import body
from online_serving.schemas import PreviewRequest


def previews(services: Services) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["recommendations"])

    @api.post(
        "/v1/recommendations:preview",
        summary="What would be recommended to a user",
        description="The best by estimate as of now. Nothing is explored or logged, and nothing counts as shown: ask "
        "as often as you like what items are worth to a user, and why.",
        responses={200: {"model": PreviewAnswer}, **ERRORS},
        openapi_extra=body(PreviewRequest),
    )
    async def preview(request: Request) -> Response:
        return answer(await services.recommender.preview(await read(request, PreviewRequest)))

    return api
