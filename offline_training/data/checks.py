"""Column checks of imported rows, whole columns at a time: ids, times, values.

A check returns the column in our form and tells a Verdict which rows it refuses and why. What it returns in the place
of a refused row means nothing.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrays import Bool, Float64
from feature_store.contracts.catalogue import MAX_ID_CHARACTERS
from feature_store.contracts.errors import InvalidInput

_FIRST_MILLISECONDS = 1e11  # as seconds the year 5138, as milliseconds March 1973
_END_OF_TIME = 1e14  # as milliseconds the year 5138
_EXACT_INTEGERS = 2.0**53


class Verdict:
    """Which of n rows are refused, each for the first reason found."""

    def __init__(self, n: int) -> None:
        self._code = np.zeros(n, dtype=np.int16)
        self._reasons: list[str] = []

    def refuse(self, rows: Bool, reason: str) -> None:
        """Refuses the rows that the mask (n,) marks."""
        self._reasons.append(reason)
        self._code[(self._code == 0) & rows] = len(self._reasons)

    @property
    def passed(self) -> Bool:
        """Mask (n,) of the rows that nobody refused."""
        mask: Bool = self._code == 0
        return mask

    @property
    def reasons(self) -> list[str]:
        """The reasons of the refused rows, in row order."""
        return [self._reasons[code - 1] for code in self._code[self._code > 0]]


def ids(column: pa.Array, name: str, verdict: Verdict, *, from_csv: bool) -> pa.StringArray:
    """Ids as text. Whole numbers become their decimal text, and so do floats without a fraction: 3.0 is how a column of
    numbers looks once it has held a null, in CSV too."""
    column = _plain(column)
    if pa.types.is_floating(column.type):
        numbers = _numpy(column)
        whole = np.isfinite(numbers) & (np.abs(numbers) < _EXACT_INTEGERS)
        whole[whole] = numbers[whole] == np.floor(numbers[whole])
        verdict.refuse(~whole & ~np.isnan(numbers), f"{name} is neither text nor a whole number")
        column = pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~whole)
    elif _is_text(column.type) and from_csv:
        column = pc.replace_substring_regex(column, r"^(-?[0-9]+)\.0+$", r"\1")
    elif not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise InvalidInput(f"Column {name} holds {column.type}, ids must be text or whole numbers. Convert the column.")
    text = pc.fill_null(column.cast(pa.string()), "")
    verdict.refuse(_mask(pc.equal(pc.utf8_trim_whitespace(text), "")), f"{name} is empty")
    too_long = f"{name} has more than {MAX_ID_CHARACTERS} characters"
    verdict.refuse(_mask(pc.greater(pc.utf8_length(text), MAX_ID_CHARACTERS)), too_long)
    return text


def times(column: pa.Array, name: str, verdict: Verdict, *, optional: bool = False) -> pa.Int64Array:
    """Times as milliseconds since the epoch. optional: one that is missing is null, and no reason to refuse its row.

    Numbers below 10^11 are seconds, from there on milliseconds, value by value: seconds up to the year 5138,
    milliseconds from March 1973. Text is such a number, or ISO 8601; without an offset it is UTC.
    """
    column = _plain(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        milliseconds = _numpy(pc.cast(column, pa.timestamp("ms"), safe=False).cast(pa.int64()))
    else:
        numbers, unreadable = _numbers(column, name)
        milliseconds = np.where(np.abs(numbers) < _FIRST_MILLISECONDS, numbers * 1000, numbers)
        if unreadable.any():
            text = column.filter(pa.array(unreadable)).to_pandas()
            found = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
            milliseconds[unreadable] = (found - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(milliseconds=1)
            verdict.refuse(unreadable & np.isnan(milliseconds), f"{name} is neither a number nor an ISO 8601 time")
    missing = np.isnan(milliseconds)
    if not optional:
        verdict.refuse(missing, f"{name} is missing")
    verdict.refuse(np.isinf(milliseconds), f"{name} is not finite")
    verdict.refuse(milliseconds < 0, f"{name} is negative")
    verdict.refuse(milliseconds >= _END_OF_TIME, f"{name} lies after the year 5138: not seconds, not milliseconds")
    usable = np.isfinite(milliseconds) & (np.abs(milliseconds) < _END_OF_TIME)
    return pa.array(np.rint(np.where(usable, milliseconds, 0)).astype(np.int64), mask=missing if optional else None)


def values(column: pa.Array, name: str, verdict: Verdict) -> pa.DoubleArray:
    """Values as numbers; true is 1 and false is 0."""
    numbers, unreadable = _numbers(_plain(column), name)
    verdict.refuse(unreadable, f"{name} is not a number")
    verdict.refuse(np.isnan(numbers), f"{name} is missing")
    verdict.refuse(~np.isfinite(numbers), f"{name} is not finite")
    return pa.array(numbers)


def kinds(column: pa.Array, name: str, verdict: Verdict) -> pa.StringArray:
    """Interaction types as text."""
    column = _plain(column)
    if not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise InvalidInput(f"Column {name} holds {column.type}, types must be text like 'click'. Convert the column.")
    text = pc.fill_null(column.cast(pa.string()), "")
    verdict.refuse(_mask(pc.equal(pc.utf8_trim_whitespace(text), "")), f"{name} is missing")
    verdict.refuse(_mask(pc.match_substring(text, "\0")), f"{name} holds a NUL character")
    return text


def _numbers(column: pa.Array, name: str) -> tuple[Float64, Bool]:
    """Numbers (NaN where there is none), and the mask of texts that are none; an empty text is nothing, not a text."""
    nothing = np.zeros(len(column), dtype=np.bool_)
    if _is_text(column.type):
        text = column.to_pandas()
        blank = (text.isna() | (text.str.strip() == "")).to_numpy(dtype=np.bool_)
        numbers = pd.to_numeric(text.mask(pd.Series(blank)), errors="coerce").to_numpy(dtype=np.float64)
        return numbers, np.isnan(numbers) & ~blank
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return _numpy(column), nothing
    if pa.types.is_decimal(kind):
        return _numpy(column.cast(pa.float64())), nothing
    raise InvalidInput(f"Column {name} holds {kind}, a number is needed. Convert the column, or map another one.")


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _numpy(column: pa.Array) -> Float64:
    numbers: Any = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(numbers, dtype=np.float64)


def _mask(array: Any) -> Bool:
    mask: Bool = array.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
