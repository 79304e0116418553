"""Records of the catalogue topic: an item as it is from now on, or its deletion."""

import msgspec

from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import UNREADABLE, InvalidInput

SCHEMA_VERSION = 1


class CatalogueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the catalogue."""

    version: int = SCHEMA_VERSION
    time: int  # ms since the epoch, the server's clock
    id: str
    item: Item | None  # None: deleted


_decoder = msgspec.msgpack.Decoder(CatalogueRecord)


def encode_item(item: Item, time: int) -> bytes:
    """A record saying that the item is like this from now on."""
    return msgspec.msgpack.encode(CatalogueRecord(time=time, id=item.id, item=item))


def encode_deletion(item: str, time: int) -> bytes:
    """A record saying that the item is gone."""
    return msgspec.msgpack.encode(CatalogueRecord(time=time, id=item, item=None))


def decode(value: bytes) -> CatalogueRecord:
    """Reads a record. Raises InvalidInput if it is not one, or of another version."""
    try:
        record = _decoder.decode(value)
    except UNREADABLE as error:
        raise InvalidInput(f"A record of {len(value)} bytes is not a catalogue record: {error}.") from None
    if record.version != SCHEMA_VERSION:
        raise InvalidInput(f"A catalogue record has version {record.version}, this program reads {SCHEMA_VERSION}.")
    return record
