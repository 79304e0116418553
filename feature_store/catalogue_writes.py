"""Writes of catalogue entries in Redis, as scripts: each compares and writes in one step.

Both take the keys of catalogue, places and changes, and first how many changes to keep.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from feature_store.contracts.catalogue import Item

# Then the log's id, and id, offset and value of each change. Entries follow the order of the log, whoever writes first.
# A deleted item keeps its place, so that an older put that comes late does not bring it back. Numbers in Lua are exact
# up to 2**53.
WRITE = """
for i = 3, #ARGV, 3 do
    local id, offset, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local log, written = string.match(redis.call('HGET', KEYS[2], id) or '', '^(.*) (%d+)$')
    if log ~= ARGV[2] or tonumber(written) < tonumber(offset) then
        redis.call('HSET', KEYS[2], id, ARGV[2] .. ' ' .. offset)
        if value == '' then
            redis.call('HDEL', KEYS[1], id)
        else
            redis.call('HSET', KEYS[1], id, value)
        end
        redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*', 'kind', 'item', 'id', id)
    end
end
"""

# Then id and value of each item. What is there, or has a place, stays.
ADD = """
for i = 2, #ARGV, 2 do
    local id, value = ARGV[i], ARGV[i + 1]
    if redis.call('HEXISTS', KEYS[2], id) == 0 and redis.call('HSETNX', KEYS[1], id, value) == 1 then
        redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*', 'kind', 'item', 'id', id)
    end
end
"""


class ItemChange(NamedTuple):
    """A change of the catalogue that the log holds."""

    offset: int
    id: str
    item: Item | None  # None: deleted


def writes(changes: Iterable[ItemChange]) -> list[Any]:
    """The last arguments of WRITE."""
    return [
        argument
        for change in changes
        for argument in (change.id, change.offset, b"" if change.item is None else msgspec.json.encode(change.item))
    ]


def additions(items: Iterable[Item]) -> list[Any]:
    """The last arguments of ADD."""
    return [argument for item in items for argument in (item.id, msgspec.json.encode(item))]
