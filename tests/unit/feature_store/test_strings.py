"""Columns of text as strings."""

import pyarrow as pa
import pytest

from feature_store.strings import to_strings


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000, 10_001, 25_000])
def test_all_values_in_their_order(count: int) -> None:
    values = [f"ü{k}" for k in range(count)]
    parts = [values[:7], values[7:12_345], values[12_345:]]
    assert to_strings(pa.array(values, pa.string())) == values
    assert to_strings(pa.chunked_array([pa.array(part, pa.string()) for part in parts])) == values
