"""One call of the API: what is sent, when it is sent again, and what its outcome means."""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Optional, Union

import httpx

from matchloop_client.answers import Answer, BrokenRule, EventStatus, read
from matchloop_client.errors import ApiError, NoAnswer, NotFound

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_TRY_AGAIN = (429, 503)  # the API did not do it, and says so
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_MAX_CHARACTERS = 200  # of somebody else's answer, in a message

Outcome = Union[httpx.Response, httpx.TransportError]


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """What is sent, and the class of its answer; None: it has no content.

    repeatable: doing it twice is doing it once, so that it is sent again when nobody knows whether it was done.
    """

    method: str
    path: str
    answer: type[Answer]
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def request(self, http: Union[httpx.Client, httpx.AsyncClient]) -> httpx.Request:
        """What to send."""
        return http.build_request(self.method, self.path, json=self.body, params=self.query)


class Attempts:
    """When a call is sent again: pauses double up to 2 s, and are drawn from the whole of that, so that clients do not
    come back together; a Retry-After in seconds goes before. None begins later than `seconds` after the first."""

    def __init__(self, repeatable: bool, seconds: float) -> None:
        self._repeatable = repeatable
        self._until = time.monotonic() + seconds
        self._longest = _FIRST_PAUSE_SECONDS

    def pause(self, outcome: Outcome) -> Optional[float]:
        """Seconds to wait before the next attempt; None: there is none."""
        if not self._another(outcome):
            return None
        seconds = _retry_after(outcome) + random.uniform(0.0, self._longest)
        self._longest = min(2 * self._longest, _LONGEST_PAUSE_SECONDS)
        return seconds if time.monotonic() + seconds <= self._until else None

    def _another(self, outcome: Outcome) -> bool:
        if isinstance(outcome, httpx.Response):
            return outcome.status_code in _TRY_AGAIN
        return self._repeatable or isinstance(outcome, _NOT_SENT)


def _retry_after(outcome: Outcome) -> float:
    said = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    return float(said) if said.isdecimal() else 0.0


def answer(call: Call[Answer], outcome: Outcome) -> Answer:
    """What the API answered. Raises NoAnswer or ApiError."""
    if isinstance(outcome, httpx.TransportError):
        raise NoAnswer(f"{call} was not answered: {type(outcome).__name__} {outcome}".rstrip()) from outcome
    if not outcome.is_success:
        raise _refusal(str(call), outcome)
    try:
        return read(call.answer, outcome.json() if outcome.content else None)
    except (TypeError, ValueError) as error:
        raise _unreadable(str(call), outcome, str(error)) from error


def _refusal(call: str, response: httpx.Response) -> ApiError:
    kind = NotFound if response.status_code == 404 else ApiError
    try:
        content = response.json()
        details = [read(BrokenRule, one) for one in content.get("details") or ()]
        events = None if content.get("events") is None else [read(EventStatus, one) for one in content["events"]]
        return kind(call, response.status_code, content["error"], content["message"], details, events)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
        return _unreadable(call, response, "Is this the address of the API?")


def _unreadable(call: str, response: httpx.Response, why: str) -> ApiError:
    return ApiError(call, response.status_code, "unreadable", f"{why} It begins {response.text[:_MAX_CHARACTERS]!r}.")
