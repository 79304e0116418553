"""`matchloop connect`: a topic of JSON that somebody else writes, read into our log.

A record is read, mapped, and in our log before its offset is kept: what is read twice because of a crash comes with the
same event ids, and counts once. What cannot be read is a dead letter.
"""

import asyncio
import logging
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from prometheus_client import Counter, Gauge
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput
from feature_store.durable import write_file
from infra.connections import kafka_bootstrap
from infra.settings import Settings
from online_serving.event_log import EventLog
from online_serving.event_mapping import EventMapping
from online_serving.feedback import UNACKNOWLEDGED, FeedbackIntake
from online_serving.schemas import MAX_EVENTS, EventsRequest, UserEvent
from streaming.dead_letter import Letter, send
from streaming.kafka import Log, Reader, Record

_log = logging.getLogger(__name__)

EVENTS = Counter("matchloop_connect_records", "Records of the connected topic, by what became of them", ["outcome"])
LAG = Gauge("matchloop_connect_lag_records", "Records of the connected topic not read yet", ["partition"])
ACCEPTED, PASSED_OVER, DEAD = "accepted", "passed_over", "dead"

_POLL_MS = 500
_PAUSE_SECONDS = 1.0  # after the log did not take everything
_SILENT_SECONDS = 120.0


class Connection(BaseModel):
    """A topic, and how to read it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(min_length=1)
    bootstrap: str | None = None  # of its cluster; None: our own
    properties: dict[str, str] | None = None  # of the connection, as kafka.properties; None: our own
    events: EventMapping


class Health:
    """What the process says of itself."""

    def __init__(self) -> None:
        self._stepped = time.monotonic()

    def step(self) -> None:
        """The topic has been looked at."""
        self._stepped = time.monotonic()

    def problem(self) -> str | None:
        """Why it is not to be trusted to work, None if it is."""
        silent = time.monotonic() - self._stepped
        return f"it has not got through its work for {silent:.0f} s" if silent > _SILENT_SECONDS else None

    def quarantined(self) -> Sequence[object]:
        """Nothing is set aside."""
        return []


def read_connection(file: Path, settings: Settings) -> Connection:
    """A connection from its TOML file. Raises InvalidInput naming the field and the rule."""
    try:
        found = Connection.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidInput(f"The file {file} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        detail = error.errors()[0]
        raise InvalidInput(f"{file}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}.") from None
    except ValueError as error:
        raise InvalidInput(f"The file {file} is not valid TOML: {error}.") from None
    if undeclared := sorted(set(found.events.types.values()) - settings.rewards.weights.keys()):
        raise InvalidInput(f"{file}: events.types: {undeclared} are not declared in rewards.weights.")
    return found


class Position(msgspec.Struct):
    """Up to where a topic was read. log: its id; another one begins anew."""

    log: str
    offsets: dict[int, int]


async def connect(settings: Settings, connection: Connection, stop: threading.Event, health: Health) -> None:
    """Reads until stopped. Raises Unavailable if a cluster does not answer, or no longer holds what is to be read."""
    clock, ours = SystemClock(), kafka_bootstrap(settings)
    given = settings.kafka if connection.properties is None else settings.kafka.model_copy(
        update={"properties": connection.properties}
    )  # fmt: skip
    theirs = Log(given, connection.bootstrap or ours)
    log = EventLog(settings.kafka, clock)
    path = settings.home / "connect" / f"{connection.topic}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    async with log.running(ours):
        intake = FeedbackIntake(settings.keyring(), log, settings.serving, settings.rewards, clock)
        position = await asyncio.to_thread(_begin, theirs, connection.topic, path)
        reader = await asyncio.to_thread(theirs.reader, connection.topic, position.offsets)
        with closing(reader), closing(Log(settings.kafka, ours).writer()) as letters:
            while not stop.is_set():
                records = await asyncio.to_thread(reader.poll, _POLL_MS)
                health.step()
                if not records:
                    continue
                events, dead = read(records, connection, settings.rewards.weights, position.log)
                await _take(intake, events, health)
                await asyncio.to_thread(send, letters, settings.kafka.topics.deadletter, dead)
                for record in records:
                    position.offsets[record.partition] = record.offset + 1
                await asyncio.to_thread(write_file, path, msgspec.json.encode(position))
                _measure(reader, position)


def read(
    records: Sequence[Record], connection: Connection, declared: Mapping[str, float], log: str
) -> tuple[list[UserEvent], list[Letter]]:
    """What records tell, and those that cannot be read. log: the id of their topic's log."""
    events: list[UserEvent] = []
    dead = []
    for record in records:
        place = f"{connection.topic}/{record.partition}/{record.offset}"
        try:
            found = connection.events.events(msgspec.json.decode(record.value), place)
            if undeclared := {event.type for event in found} - declared.keys():
                raise InvalidInput(f"Event type {sorted(undeclared)[0]!r} is not declared in rewards.weights.")
        except (InvalidInput, msgspec.DecodeError) as error:
            EVENTS.labels(DEAD).inc()
            reason = f"{connection.topic}: {error}"
            dead.append(
                Letter(
                    source="connected", log=log, partition=record.partition, offset=record.offset, namespace=None,
                    reason=reason, event=None, record=record.value,
                )
            )  # fmt: skip
        else:
            EVENTS.labels(ACCEPTED if found else PASSED_OVER).inc()
            events += found
    return events, dead


async def _take(intake: FeedbackIntake, events: Sequence[UserEvent], health: Health) -> None:
    """Has the log take them all, however long that needs: its health says so."""
    for start in range(0, len(events), MAX_EVENTS):
        waiting = list(events[start : start + MAX_EVENTS])
        while waiting:
            statuses = await intake.take_events(EventsRequest(events=waiting))
            missing = [status["status"] == UNACKNOWLEDGED for status in statuses]
            waiting = [event for event, again in zip(waiting, missing, strict=True) if again]
            if waiting:
                _log.warning("the log did not take %d events: trying again", len(waiting))
                await asyncio.sleep(_PAUSE_SECONDS)
        health.step()


def _begin(theirs: Log, topic: str, path: Path) -> Position:
    """Where to go on; at the beginning of a partition that was never read."""
    identity, count = theirs.log_id(topic), theirs.partitions(topic)
    known: dict[int, int] = {}
    if path.exists():
        before = msgspec.json.decode(path.read_bytes(), type=Position)
        known = before.offsets if before.log == identity else {}
    with closing(theirs.reader(topic, dict.fromkeys(range(count), 0))) as reader:
        begins = {number: reader.begin(number) for number in range(count) if number not in known}
    return Position(identity, begins | known)


def _measure(reader: Reader, position: Position) -> None:
    for partition in position.offsets:
        LAG.labels(str(partition)).set(reader.lag(partition))
