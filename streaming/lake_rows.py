"""Records of the log as rows of the lake, and rows as events again, exactly as they were."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from feature_store.contracts.catalogue import Attributes, Item
from feature_store.contracts.columns import CATALOGUE, EVENTS
from feature_store.contracts.events import Decision, Erasure, Event, Feedback, Merge, Profile, Switch, Tick, Withdrawal
from streaming import catalogue_log
from streaming.admission import events_of
from streaming.dead_letter import Source
from streaming.kafka import Record

_KINDS: dict[type[Event], str] = {
    Decision: "decision",
    Feedback: "feedback",
    Withdrawal: "withdrawal",
    Profile: "profile",
    Erasure: "erasure",
    Merge: "merge",
    Tick: "tick",
    Switch: "switch",
}
_TYPES = {kind: event for event, kind in _KINDS.items()}
_FIELDS = {event: msgspec.structs.fields(event) for event in _KINDS}
_attributes_decoder = msgspec.json.Decoder(Attributes)


class Topic(NamedTuple):
    """How the records of a topic become rows."""

    source: Source
    schema: pa.Schema
    rows: Callable[[Record], list[dict[str, Any]]]


def event_rows(record: Record) -> list[dict[str, Any]]:
    """The events of a record of the events topic as rows. Raises InvalidInput as events_of does."""
    return [{"offset": record.offset, "position": i, **row_of(event)} for i, event in enumerate(events_of(record))]


def row_of(event: Event) -> dict[str, Any]:
    """The event as a row of the lake, without its place."""
    row = {"kind": _KINDS[type(event)], **msgspec.structs.asdict(event)}
    if isinstance(event, Profile):
        row["attributes"] = msgspec.json.encode(event.attributes).decode()
    return row


def event_of(row: dict[str, Any]) -> Event:
    """The event that a row of the lake was made from."""
    event = _TYPES[row["kind"]]
    fields = {f.encode_name: row[f.encode_name] for f in _FIELDS[event]}
    if event is Profile:
        fields["attributes"] = _attributes_decoder.decode(fields["attributes"])
    return event(**fields)


def _catalogue_rows(record: Record) -> list[dict[str, Any]]:
    change = catalogue_log.decode(record.value)
    row = {"offset": record.offset, "time": change.time, "item": change.id, "deleted": change.item is None}
    return [row if change.item is None else row | _description(change.item)]


def change_of(row: dict[str, Any]) -> tuple[str, Item | None]:
    """The id and the item, None: deleted, that a row of the catalogue was made from."""
    if row["deleted"]:
        return row["item"], None
    return row["item"], Item(
        id=row["item"],
        title=row["title"],
        categories=row["categories"],
        attributes=_attributes_decoder.decode(row["attributes"]),
        available=row["available"],
        available_from=row["available_from"],
        available_until=row["available_until"],
    )


def _description(item: Item) -> dict[str, Any]:
    return {
        "title": item.title,
        "categories": item.categories,
        "attributes": msgspec.json.encode(item.attributes).decode(),
        "available": item.available,
        "available_from": item.available_from,
        "available_until": item.available_until,
    }


EVENT_TOPIC = Topic("events", EVENTS, event_rows)
CATALOGUE_TOPIC = Topic("catalogue", CATALOGUE, _catalogue_rows)
