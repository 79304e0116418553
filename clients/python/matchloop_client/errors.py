"""What may go wrong with a call."""

from collections.abc import Sequence
from typing import Optional

from matchloop_client.answers import BrokenRule, EventStatus


class MatchLoopError(Exception):
    """A call did not bring what was asked for."""


class NoAnswer(MatchLoopError):
    """There was no answer: the API could not be reached, or not in time. It may have done what was asked for."""


class ApiError(MatchLoopError):
    """The API answered that it did not do it.

    status: of HTTP. code: the kind of error, `invalid_input` for one; `unreadable` if the answer was not the API's.
    details: of each field that breaks a rule, which. events: of events that were not taken, or not all, what became of
    each.
    """

    def __init__(
        self,
        call: str,
        status: int,
        code: str,
        message: str,
        details: Sequence[BrokenRule] = (),
        events: Optional[Sequence[EventStatus]] = None,
    ) -> None:
        rules = "".join(f"; {one.field} is {one.value!r}: {one.rule}" for one in details)
        super().__init__(f"{call} was answered {status} {code}: {message}{rules}")
        self.status = status
        self.code = code
        self.message = message
        self.details = list(details)
        self.events = None if events is None else list(events)


class NotFound(ApiError):
    """There is no such item or user, or no event belongs to a decision of this API."""
