"""Rows of sums for tests, written as {"cluster:item": values}, {":item": values} for the item's own row."""

from collections.abc import Mapping, Sequence

import numpy as np

from feature_store.arrays import Float64
from feature_store.sums import ITEM, Rows, Sums


def rows_of(named: Mapping[str, Sequence[float] | Float64]) -> Rows:
    """The rows, in the order they are named."""
    sums = Sums()
    for name, values in named.items():
        cluster, _, item = name.partition(":")
        number = sums.numbers.of([item])
        sums.add(number, np.array([int(cluster) if cluster else ITEM], np.int32), np.array([values], dtype=np.float64))
    return sums.rows()


def by_name(rows: Rows) -> dict[str, list[float]]:
    """What rows_of was given, in the order of the rows."""
    return {
        f"{'' if cluster == ITEM else cluster}:{rows.items[item]}": values
        for item, cluster, values in zip(rows.item, rows.cluster, rows.values.tolist(), strict=True)
    }
