"""A small lake that holds one of everything, and what it says.

`python -m tests.golden_lake tests/golden/lake/N` writes it as today's code does, and
`python -m tests.golden_lake tests/golden/log/N.M --log` the records of its log, N being their schema version and M
counting what was added since: tests/golden keeps what each format wrote.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.catalogue import Attributes, Item
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.events import Erasure, Event, Merge, Profile, Switch, Tick, Withdrawal, encode
from feature_store.home import Home
from offline_training.data.importer import import_data
from offline_training.data.sources import Mapping
from offline_training.progress import silent
from streaming import catalogue_log
from streaming.dead_letter import Outbox
from streaming.kafka import Record, Writer
from streaming.lake_rows import CATALOGUE_TOPIC, EVENT_TOPIC
from streaming.sink import PartitionSink
from tests.events import KEYRING, decision, feedback, interaction, unlogged

LOG = "golden"
NOON = 1_800_000_000_000  # ms
ATTRIBUTES: Attributes = {
    "city": "Köln",
    "code": "007",
    "number": "42",
    "age": 42,
    "rate": 0.5,
    "big": 1e300,
    "new": True,
}
_MADE = decision("ann", NOON, ["a", "b"])
_LATER = decision("bob", NOON + 60_000, ["b", "c"], nonce=b"abcdefgh")
EVENTS: list[Event] = [  # each a record
    Tick(time=NOON - 5_000),
    _MADE,
    feedback(_MADE, "a", "view"),
    feedback(_MADE, "a", "like", event="f", received=NOON + 2_000),
    Profile(user=KEYRING.user_key("ann"), time=NOON + 3_000, attributes=ATTRIBUTES),
    _LATER,
    Withdrawal(decision=_LATER.id, user=_LATER.user, time=NOON + 61_000),
    feedback(unlogged("bob", NOON + 62_000), "c", "like"),
    interaction("eve", "a", received=NOON + 70_000),
    Switch(learning=False, time=NOON + 80_000),
    Erasure(user=KEYRING.user_key("eve"), time=NOON + 90_000),
    # Kinds that were added since: older lakes and logs end before them.
    Merge(user=KEYRING.user_key("visitor"), account=KEYRING.user_key("bob"), time=NOON + 95_000),
]
CHANGES: list[tuple[str, Item | None]] = [
    ("a", Item(id="a", title="A book", categories=["books"], attributes={"price": 12, "label": "red"})),
    ("c", Item(id="c", available=False)),
    ("b", None),
]
INTERACTIONS = [("ann", "a", "rating", 4.0, 86_400_000), ("bob", "b", "rating", 1.0, 2_700_000_000)]  # ms
IMPORTED_ITEMS = [Item(id="b", title="Bee", categories=["x", "y"], attributes={"year": 1999, "hot": False})]
IMPORTED_USERS: list[tuple[str, Attributes]] = [("ann", {"age": 41, "job": "none"})]


def write(home: Path) -> None:
    """Writes it into a home directory: two files of events, one of changes, and an import."""
    outbox = Outbox(Writer.__new__(Writer), "dead")  # nothing here becomes a letter
    events = PartitionSink(home / "lake", EVENT_TOPIC, LOG, 0, outbox)
    for offset, event in enumerate(EVENTS):
        events.take(Record(0, offset, None, encode([event]), NOON))
        if offset == 4:
            events.flush()
    events.flush()
    catalogue = PartitionSink(home / "lake", CATALOGUE_TOPIC, LOG, 0, outbox)
    for offset, (name, item) in enumerate(CHANGES):
        deletion = catalogue_log.encode_deletion(name, NOON)
        value = deletion if item is None else catalogue_log.encode_item(item, NOON + offset)
        catalogue.take(Record(0, offset, None, value, NOON))
    catalogue.flush()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        users, items, kinds, values, times = zip(*INTERACTIONS, strict=True)
        rows = {"user_id": users, "item_id": items, "type": kinds, "value": values}
        stamped = pa.table({**rows, "timestamp": pa.array(times, pa.timestamp("ms"))})
        pq.write_table(stamped, source / "interactions.parquet")
        described = [
            {"item_id": item.id, "title": item.title, "categories": item.categories, **item.attributes}
            for item in IMPORTED_ITEMS
        ]
        pq.write_table(pa.Table.from_pylist(described), source / "items.parquet")
        known = [{"user_id": user, **attributes} for user, attributes in IMPORTED_USERS]
        pq.write_table(pa.Table.from_pylist(known), source / "users.parquet")
        import_data(source, Home(home), KEYRING, Mapping({}), ManualClock(NOON), silent)


def write_log(folder: Path) -> None:
    """Writes the records of the events, a file each."""
    folder.mkdir(parents=True)
    for offset, event in enumerate(EVENTS):
        (folder / f"{offset:02}.msgpack").write_bytes(encode([event]))


if __name__ == "__main__":
    (write_log if "--log" in sys.argv else write)(Path(sys.argv[1]))
