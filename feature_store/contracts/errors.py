"""Errors that people see. Each names the thing, the value found and what to do about it."""

import msgspec

# What msgspec raises for bytes that hold something else than they should: also for text that is not UTF-8, and for
# nesting that is too deep.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class MatchLoopError(Exception):
    """Base of every error MatchLoop raises on purpose. The message is a complete sentence for a person."""


class InvalidInput(MatchLoopError):
    """Data from outside breaks a rule that we published."""


class ForgedDecision(InvalidInput):
    """A decision id does not carry this installation's signature."""


class ReleaseRefused(MatchLoopError):
    """A release or namespace on disk is damaged, or was made for another schema or feature set."""


class LogMismatch(MatchLoopError):
    """Stored offsets belong to another log, or to another number of partitions, than the broker shows."""


class LakeDamaged(MatchLoopError):
    """The lake does not hold a range of the log, holds it twice, or in a file that cannot be read."""


class Fenced(MatchLoopError):
    """Another writer has moved this partition on: what was about to be committed is stale and was not written."""


class Unavailable(MatchLoopError):
    """A part of the stack does not answer."""


class Unacknowledged(Unavailable):
    """Something was sent and not acknowledged: whether it has arrived, or still will, nobody knows."""
