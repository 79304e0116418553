"""Reads the item lists that Spark made, and says how long they should be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from offline_training.retrieval.dataset import Catalogue
from online_serving.item_lists import ItemLists

Int64 = NDArray[np.int64]

KNEE = 0.01  # what doubling the lists must add to the hit rate to be worth it


def read_item_lists(directory: Path, catalogue: Catalogue, length: int) -> ItemLists:
    """Reads `item_lists/` or `item_lists_at_validation/`; items that the catalogue does not hold are left out."""
    items = np.full((len(catalogue.items), length), -1, np.int32)
    scores = np.zeros(items.shape, np.float32)
    for batch in ds.dataset(directory).to_batches():
        entry = np.repeat(np.arange(len(batch)), pc.list_value_length(batch["items"]).to_numpy())
        row = np.array([catalogue.index.get(name, -1) for name in batch["item"].to_pylist()], np.int64)[entry]
        other = np.array([catalogue.index.get(name, -1) for name in batch["items"].flatten().to_pylist()], np.int64)
        kept = (row >= 0) & (other >= 0)
        entry = entry[kept]
        place = np.arange(len(entry)) - np.searchsorted(entry, entry)
        fits = place < length
        at = row[kept][fits], place[fits]
        items[at], scores[at] = other[kept][fits], batch["scores"].flatten().to_numpy()[kept][fits]
    return ItemLists(items, scores)


def hit_rates(lists: ItemLists, liked: Sequence[Int64], wanted: Int64) -> dict[int, float]:
    """The ceiling of what any scorer can find: by length T = 1, 2, 4, ... the share of the wanted items (n,) that stand
    among the first T of the list of a trigger. liked: what each of the n users liked before, newest first."""
    width = lists.items.shape[1]
    best = np.full(len(wanted), width)
    for row, past in enumerate(liked):
        found = np.nonzero(lists.items[lists.triggers(past)] == wanted[row])[1]
        best[row] = found.min(initial=width)
    lengths = [*(1 << k for k in range(width.bit_length()) if 1 << k < width), width]
    return {length: float(np.mean(best < length)) if len(best) else 0.0 for length in lengths}


def knee(rates: dict[int, float]) -> int:
    """The shortest length from which on doubling never adds KNEE to the hit rate."""
    lengths = sorted(rates)
    gains = np.diff([rates[length] for length in lengths])
    return lengths[int(np.flatnonzero(gains >= KNEE).max(initial=-1)) + 1]
