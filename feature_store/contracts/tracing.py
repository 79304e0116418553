"""On behalf of which request something is done: W3C Trace Context (https://www.w3.org/TR/trace-context/).

Whoever calls says in the header `traceparent` which trace a request belongs to. Its id is in every log line of the
request, in the decision or feedback that comes of it, and in the header `traceresponse` of the answer.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

_VERSION = "00"  # of the headers that are written; later ones begin alike, and are read
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 1  # the flag that says that the caller may have recorded the trace


class Trace(NamedTuple):
    """A trace, and the part of it that is done here."""

    id: str  # 32 hexadecimal digits
    span: str  # 16
    sampled: bool

    def header(self) -> str:
        """As `traceresponse` and `traceparent` have it."""
        return f"{_VERSION}-{self.id}-{self.span}-{self.sampled:02x}"


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


def continued(traceparents: Sequence[bytes]) -> Trace:
    """The trace that these headers of a request name, with a span of its own; a new trace if there is none, if there
    are several, or if it breaks the standard."""
    found = _TRACEPARENT.fullmatch(traceparents[0].strip(b" \t")) if len(traceparents) == 1 else None
    span = secrets.token_hex(8)
    if found is None:
        return Trace(secrets.token_hex(16), span, sampled=False)
    version, trace, parent, flags, more = found.groups()
    allowed = version != b"ff" and (more is None or version != _VERSION.encode())
    if not allowed or not trace.strip(b"0") or not parent.strip(b"0"):
        return Trace(secrets.token_hex(16), span, sampled=False)
    return Trace(trace.decode(), span, bool(int(flags, 16) & _SAMPLED))


@contextmanager
def within(trace: Trace) -> Iterator[None]:
    """What is done within it is done for this trace; so is what tasks do that are begun within it."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


def current_id() -> str | None:
    """The id of the trace that something is done for here, None if for none."""
    trace = _trace.get()
    return None if trace is None else trace.id
