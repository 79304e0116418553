"""Many values in batches, one round trip each."""

from collections.abc import Iterable, Iterator
from typing import Any

BATCH = 500


def batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    """The values, in lists of at most BATCH."""
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
