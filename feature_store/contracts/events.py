"""The one log: what its records hold and how they are written.

A record's key is the user key, so a user's decisions and feedback share a partition and keep their order. Its value is
MessagePack: `[schema version, [event, ...]]`. A decision is self-contained: whoever reads it needs nothing else to
learn from it, to evaluate another policy on it, or to explain it.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from feature_store.contracts.catalogue import Attributes
from feature_store.contracts.errors import UNREADABLE, InvalidInput

SCHEMA_VERSION = 2
MAX_VALUE = 1e12  # of feedback, either way: times a weight and squared it is still far from infinite

# Bounds that every reader, Parquet included, can hold.
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**47)]  # since the epoch
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Mask = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class SlateColumns(msgspec.Struct, frozen=True, kw_only=True):
    """A slate and what led to it, as the pipeline answers and the log records it.

    `items` holds the slate in position order and then the rest of the exploration set (every item that had a chance of
    being shown); the columns beside it run parallel to it. `probabilities` runs parallel to the slate alone.
    """

    clusters: list[Count]  # the user's active clusters
    weights: list[float]  # w, parallel to clusters (Online Matching, Eq. 10)
    history: list[str]  # the user features used: items of the history that the model read, newest first ...
    history_kinds: list[str]  # ... their kinds (definitions.HistoryEvent) ...
    history_times: list[Milliseconds]  # ... and when they became known
    profile: list[str]  # the user features used: profile tokens
    items: list[str]
    shown: Count  # the first `shown` of items are the slate
    sources: list[str]  # where each candidate came from
    predicted: list[float]  # the offline model's calibrated probability of a reward
    mean: list[float]  # the policy's estimate of the reward
    bonus: list[float]  # the policy's exploration bonus; 0: not to be explored
    edges: list[Mask]  # bit k is set if the edge (clusters[k], item) exists and will be updated
    probabilities: list[float]  # of each shown item at its position, given the slate so far
    # Parallel to the slate, where the request has rules among its items: what the greedy policy does under them, given
    # the slate so far. None: what the means say.
    greedy: list[float] | None = None  # its chance of putting the same item there
    greedy_mean: list[float] | None = None  # the mean of what it puts there
    # What the request itself has put between the items of the slate, and where in the answer, from 1. The policy did
    # not decide on it: it is no trial, and what is done with it is history.
    pinned: list[str] | None = None
    pinned_places: list[Count] | None = None

    def columns(self) -> dict[str, Any]:
        """These columns alone, by name."""
        return {name: getattr(self, name) for name in SlateColumns.__struct_fields__}


class Decision(SlateColumns, frozen=True, tag="decision", tag_field="kind", kw_only=True):
    """One answered recommendation request."""

    id: str
    user: str
    time: Milliseconds  # the server's clock
    surface: str
    release: str
    namespace: str
    variant: str  # in which experiments the user was, and with which variants: experiments.label
    learns: bool  # the bandit was switched on: only then does the decision train it
    offsets: list[Offset]  # parameters in use: the log offset folded so far, one per partition
    candidates: list[str] | None = None  # the whole candidate list, for a sampled share of decisions
    latency_ms: float | None = None  # from the request to this decision
    path: str | None = None  # full, or plainer because parts failed; None: from before this was noted
    trace: str | None = None  # id of the request's trace (tracing.Trace); None: from before this was noted


class Feedback(msgspec.Struct, frozen=True, tag="feedback", tag_field="kind", kw_only=True):
    """One thing a user did with one item, of a decision or of none."""

    id: str  # the client's event id: the same id for the same decision counts once
    decision: str  # what identity.Keyring.no_decision_id makes, if it belongs to none
    user: str
    item: str
    type: str
    value: float
    time: Milliseconds  # as the client says
    received: Milliseconds  # the server's clock
    session: str | None = None  # the client's, of an event that belongs to no decision
    trace: str | None = None  # id of the trace of the request that told of it; None: from before this was noted


class Withdrawal(msgspec.Struct, frozen=True, tag="withdrawal", tag_field="kind", kw_only=True):
    """A logged decision whose slate was never shown: the log took it too late, and its user got another answer."""

    decision: str
    user: str
    time: Milliseconds


class Profile(msgspec.Struct, frozen=True, tag="profile", tag_field="kind", kw_only=True):
    """What is known about a user beside their history, in place of what was known before."""

    user: str
    time: Milliseconds  # the server's clock
    attributes: Attributes


class Erasure(msgspec.Struct, frozen=True, tag="erasure", tag_field="kind", kw_only=True):
    """Everything known of the user until then is to be forgotten. Whoever comes back is somebody new."""

    user: str
    time: Milliseconds  # the server's clock


class Merge(msgspec.Struct, frozen=True, tag="merge", tag_field="kind", kw_only=True):
    """A visitor has turned out to be a user: what they did and were shown until then is the user's. Whoever comes back
    under the visitor's id is somebody new."""

    user: str  # the visitor
    account: str  # the user's key
    time: Milliseconds  # the server's clock


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="kind", kw_only=True):
    """Stream time for a quiet partition, so that windows close without traffic."""

    time: Milliseconds


class Switch(msgspec.Struct, frozen=True, tag="switch", tag_field="kind", kw_only=True):
    """Stops or resumes learning from this point of the log on. In the log, so that a replay obeys it too."""

    learning: bool
    time: Milliseconds


Event = Decision | Feedback | Withdrawal | Profile | Erasure | Merge | Tick | Switch

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, list[Event]])
_version_decoder = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])


def encode(events: Sequence[Event]) -> bytes:
    """One record's value."""
    return _encoder.encode((SCHEMA_VERSION, events))


def decode(value: bytes) -> list[Event]:
    """The events of one record. Raises InvalidInput if it is not one of ours, or of another schema version."""
    try:
        version, events = _decoder.decode(value)
    except UNREADABLE as error:
        raise InvalidInput(_complaint(value, error)) from None
    if version != SCHEMA_VERSION:
        raise InvalidInput(_complaint(value, None))
    return events


def event_time(event: Event) -> int:
    """The record time that moves stream time: always a server's clock, never a client's."""
    return event.received if isinstance(event, Feedback) else event.time


def _complaint(value: bytes, error: Exception | None) -> str:
    try:
        version, _ = _version_decoder.decode(value)
    except UNREADABLE:
        return f"A record of {len(value)} bytes is not an event record ({error}). Who else writes to this topic?"
    if version != SCHEMA_VERSION:
        return (
            f"A record has event schema version {version}, this program reads {SCHEMA_VERSION}. "
            "Run the version of MatchLoop that wrote it, or a newer one."
        )
    return f"A record of {len(value)} bytes has a field that breaks the event schema: {error}."
