"""The dead-letter topic: what could not be processed, with the reason, never silently dropped.

A letter names the place in the log that it came from. It may be written more than once, by a process that crashed or by
two that met the same record: readers take it once by that place. What is appended to the log again is remembered as a
further letter of the same place, so that it is not appended a third time.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import UNREADABLE, InvalidInput
from feature_store.contracts.events import Event, Feedback, encode, event_time
from feature_store.contracts.identity import read_decision_id
from streaming.admission import events_of
from streaming.kafka import Appended, Record, Writer

SCHEMA_VERSION = 2
_REMEMBERED = 10_000  # letters sent
_AT_ONCE = 1_000  # letters that wait for the log's acknowledgement
MAX_BYTES = 900_000  # of a record or event kept; Kafka takes records of 1 MB unless told otherwise


Source = Literal["events", "catalogue", "connected"]  # which of our topics, or somebody else's
Place = tuple[str, int, int, bytes]


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One event, or one record that could not be read."""

    version: int = SCHEMA_VERSION
    source: Source = "events"
    log: str
    partition: int
    offset: int
    namespace: str | None  # that could not fold it; None: the sink could not read it
    reason: str
    event: Event | None
    record: bytes | None  # where there is no event
    cut: bool = False  # the record is its first MAX_BYTES bytes
    retried: bool = False  # written when what the letter holds was appended to the log again

    @property
    def place(self) -> Place:
        """Where it came from, and which event of that record it is: letters with equal places are one."""
        content = self.record or b"" if self.event is None else _encoder.encode(self.event)
        return self.log, self.partition, self.offset, content


class Reason(NamedTuple):
    """Letters with the same reason, in order of their places."""

    reason: str
    letters: list[Letter]


class Retry(NamedTuple):
    """What became of letters that were to be appended again."""

    appended: list[Letter]
    refused: list[tuple[Letter, str]]  # with the reason
    late: int  # of those appended: feedback whose window has closed by now


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Letter)


class Outbox:
    """Sends dead letters without waiting for the log."""

    def __init__(self, writer: Writer, topic: str) -> None:
        self._writer = writer
        self._topic = topic
        self._sent: OrderedDict[bytes, Future[Appended]] = OrderedDict()

    def post(self, letter: Letter) -> Future[Appended]:
        """Sends a letter, cut to what Kafka takes. One of the same place, from another namespace that folds the same
        record, is not sent a second time: both wait for the same acknowledgement."""
        *where, content = letter.place
        place = blake2b(repr(where).encode() + content, digest_size=16).digest()
        before = self._sent.get(place)
        if before is not None and not (before.done() and before.exception()):
            return before
        sent = self._writer.send(self._topic, None, _encoder.encode(_cut(letter)))
        self._sent[place] = sent
        if len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)
        return sent


def send(writer: Writer, topic: str, letters: Iterable[Letter]) -> None:
    """Writes letters, cut to what Kafka takes, and waits until the log has them. Raises Unavailable if it does not take
    one."""
    waiting = deque[Future[Appended]]()
    for letter in letters:
        waiting.append(writer.send(topic, None, _encoder.encode(_cut(letter))))
        if len(waiting) == _AT_ONCE:
            waiting.popleft().result()
    for sent in waiting:
        sent.result()


def decode(value: bytes) -> Letter:
    """Reads a letter. Raises InvalidInput if it is none, or of another version."""
    try:
        letter = _decoder.decode(value)
    except UNREADABLE as error:
        raise InvalidInput(f"A record of {len(value)} bytes is not a dead letter: {error}.") from None
    if letter.version != SCHEMA_VERSION:
        raise InvalidInput(f"A dead letter has version {letter.version}, this program reads {SCHEMA_VERSION}.")
    return letter


def pending(records: Iterable[Record], erased: Mapping[str, int]) -> list[Letter]:
    """The letters of a dead-letter topic, each place once, without those that were retried and without records that are
    not dead letters of this version. erased: users (by key) whose letters are left out up to a time (ms)."""
    letters: dict[Place, Letter] = {}
    retried = set()
    for record in records:
        try:
            letter = decode(record.value)
        except InvalidInput:
            continue
        if letter.retried:
            retried.add(letter.place)
        else:
            letters.setdefault(letter.place, letter)
    return [
        letter for place, letter in letters.items() if place not in retried and not _is_erased(letter.event, erased)
    ]


def _is_erased(event: Event | None, erased: Mapping[str, int]) -> bool:
    return event is not None and event_time(event) <= erased.get(getattr(event, "user", ""), -1)


def by_reason(letters: Iterable[Letter]) -> list[Reason]:
    """Letters by their reason, the most frequent first."""
    groups: dict[str, list[Letter]] = {}
    for letter in letters:
        groups.setdefault(letter.reason, []).append(letter)
    reasons = [Reason(reason, sorted(found, key=lambda letter: letter.place)) for reason, found in groups.items()]
    return sorted(reasons, key=lambda reason: (-len(reason.letters), reason.reason))


def plan_retry(letters: Iterable[Letter], window_seconds: float, clock: Clock) -> Retry:
    """What a retry of the letters would append. Refused is what is not whole, no event, or still not readable. An event
    keeps its id: what it has counted for already it does not count for again."""
    now = clock.now_ms()
    appended, refused, late = [], [], 0
    for letter in letters:
        try:
            events = _events(letter, now)
        except InvalidInput as error:
            refused.append((letter, str(error)))
            continue
        appended.append(letter)
        late += sum(_closed(event, now - window_seconds * 1000) for event in events)
    return Retry(appended, refused, late)


def append_again(
    writer: Writer, letters: Sequence[Letter], events_topic: str, deadletter_topic: str, clock: Clock
) -> None:
    """Appends what the letters of a plan hold to the log, and then remembers it. Raises Unavailable if the log does not
    take it all: what was not remembered by then is appended again by the next retry, and counts once by its ids."""
    now = clock.now_ms()
    for start in range(0, len(letters), _AT_ONCE):
        places = []
        for letter in letters[start : start + _AT_ONCE]:
            events = _events(letter, now)
            user = next((event.user for event in events if hasattr(event, "user")), None)
            places.append(writer.send(events_topic, user, encode(events), None if user else letter.partition))
        for place in places:
            place.result()
        done = letters[start : start + _AT_ONCE]
        send(writer, deadletter_topic, (msgspec.structs.replace(letter, retried=True) for letter in done))


def _events(letter: Letter, now: int) -> list[Event]:
    if letter.source == "connected":
        raise InvalidInput("It is a record of somebody else's topic: mend its mapping, and send it there again.")
    if letter.source != "events":
        raise InvalidInput("It is a change of the catalogue: send it to the API again.")
    if letter.event is not None:
        return [letter.event]
    if letter.cut or letter.record is None:
        raise InvalidInput(f"Of the record only the first {MAX_BYTES} bytes were kept.")
    return events_of(Record(letter.partition, letter.offset, None, letter.record, now))


def _closed(event: Event, before: float) -> bool:
    named = read_decision_id(event.decision) if isinstance(event, Feedback) else None
    return named is not None and not named.is_none and named.time <= before


def _cut(letter: Letter) -> Letter:
    event, record = letter.event, letter.record
    if event is not None:
        whole = _encoder.encode(event)
        if len(whole) <= MAX_BYTES:
            return letter
        record = whole
    if record is None or len(record) <= MAX_BYTES:
        return letter
    return msgspec.structs.replace(letter, event=None, record=record[:MAX_BYTES], cut=True)
