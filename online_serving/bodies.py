"""Reading request bodies and writing answers: bounded and strict."""

from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from online_serving.errors import BodyTooLarge, BrokenRules, broken_detail
from online_serving.schemas import MAX_BODY_BYTES

Body = TypeVar("Body", bound=BaseModel)


async def content(request: Request) -> bytes:
    """The body. Raises BodyTooLarge."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes. Send it in several requests.")
        chunks.append(chunk)
    return b"".join(chunks)


async def read(request: Request, model: type[Body]) -> Body:
    """The body as the model. Raises BodyTooLarge, or BrokenRules naming each field, its value and the rule."""
    try:
        return model.model_validate_json(await content(request))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise BrokenRules([broken_detail(problem) for problem in problems]) from None


def answer(said: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(said), status, media_type="application/json")
