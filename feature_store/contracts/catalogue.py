"""Items and users as the world describes them, whichever way they come in (import, HTTP, Redis, topic)."""

import math
import re
from typing import Annotated

import msgspec

from feature_store.contracts.errors import InvalidInput

MAX_ID_CHARACTERS = 256
MAX_TITLE_CHARACTERS = 1_000
MAX_CATEGORIES = 64
MAX_ATTRIBUTES = 64

_WORD = re.compile(r"\w+")
# What is read as JSON where attributes are a map of texts, for Python and Java alike.
JSON_TEXT = r'(?s:".*)|true|false|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?'

Attribute = str | int | float | bool
Attributes = Annotated[dict[str, Attribute], msgspec.Meta(max_length=MAX_ATTRIBUTES)]

_JSON_TEXT = re.compile(JSON_TEXT)
_decoder: msgspec.json.Decoder[Attribute] = msgspec.json.Decoder(Attribute)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the catalogue. `available=False` takes it out of answers and keeps what was learnt about it, as do
    times (ms since the epoch) before which, and from which on, it is not to be shown."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
    title: Annotated[str, msgspec.Meta(max_length=MAX_TITLE_CHARACTERS)] = ""
    categories: Annotated[list[str], msgspec.Meta(max_length=MAX_CATEGORIES)] = []
    attributes: Attributes = {}
    available: bool = True
    available_from: int | None = None
    available_until: int | None = None

    def in_window(self, time: int) -> bool:
        """Whether the item may be shown at the time (ms), as far as its window says."""
        return (self.available_from or 0) <= time and (self.available_until is None or time < self.available_until)

    def tokens(self) -> list[str]:
        """The item's content as `name=value` tokens: what the item tower reads, in training and in serving."""
        tokens = [f"category={category}" for category in self.categories]
        tokens += [f"title={word}" for word in _WORD.findall(self.title.lower())]
        tokens += attribute_tokens(self.attributes)
        return sorted(set(tokens))


class UserProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a user beside their history."""

    attributes: Attributes = {}

    def tokens(self) -> list[str]:
        """The profile as `name=value` tokens: what the user tower reads."""
        return sorted(attribute_tokens(self.attributes))


def attribute_text(value: Attribute) -> str:
    """The value as a text of its own: JSON, but a string without quotes, unless it would be read as something else."""
    if isinstance(value, str) and not _JSON_TEXT.fullmatch(value):
        return value
    return msgspec.json.encode(value).decode()


def attribute_value(text: str) -> Attribute:
    """The value that attribute_text made the text of."""
    return _decoder.decode(text) if _JSON_TEXT.fullmatch(text) else text


def attribute_tokens(attributes: dict[str, Attribute]) -> list[str]:
    """One token per attribute; numbers fall into buckets of two significant steps per factor of two, so that 41 and 42
    are alike and 4 and 40 are not."""
    return [f"{name}={_bucket(value)}" for name, value in attributes.items()]


def _bucket(value: Attribute) -> str:
    if isinstance(value, bool | str):
        return str(value).lower()
    if not math.isfinite(value):
        raise InvalidInput(f"Attribute value {value} is not a finite number. Leave the attribute out instead.")
    if float(value).is_integer() and 1000 <= abs(value) < 3000:
        return f"{int(value) // 5 * 5}"  # looks like a year: buckets of five
    if value == 0:
        return "0"
    mantissa, exponent = math.frexp(abs(value))
    return f"{'-' if value < 0 else ''}{exponent}.{int(mantissa * 4) - 2}"
