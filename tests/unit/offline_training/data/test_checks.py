"""Column checks against rows worked out by hand."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.data import checks

NOON = 1_714_564_800_000  # 2024-05-01T12:00:00Z


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", "Ünï", "007"]), ["a", "Ünï", "007"]),
        (pa.array([1, 2**62], pa.int64()), ["1", str(2**62)]),
        (pa.array([3.0, 4.0]), ["3", "4"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array(["é"], pa.large_string()), ["é"]),
    ],
)
def test_ids_of_any_type_become_text(column: pa.Array, expected: list[str]) -> None:
    verdict = checks.Verdict(len(column))
    assert checks.ids(column, "user_id", verdict, from_csv=False).to_pylist() == expected
    assert verdict.passed.all()


def test_csv_numbers_written_as_floats_lose_their_fraction() -> None:
    verdict = checks.Verdict(4)
    found = checks.ids(pa.array(["3.0", "12.00", "1.5", "v2.0"]), "item_id", verdict, from_csv=True).to_pylist()
    assert found == ["3", "12", "1.5", "v2.0"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([None], pa.string()), "user_id is empty"),
        (pa.array(["  "]), "user_id is empty"),
        (pa.array([None], pa.int32()), "user_id is empty"),
        (pa.array([float("nan")]), "user_id is empty"),
        (pa.array(["é" * 257]), "user_id has more than 256 characters"),
        (pa.array([1.5]), "user_id is neither text nor a whole number"),
        (pa.array([float("inf")]), "user_id is neither text nor a whole number"),
    ],
)
def test_bad_ids_are_refused(column: pa.Array, reason: str) -> None:
    verdict = checks.Verdict(1)
    checks.ids(column, "user_id", verdict, from_csv=False)
    assert verdict.reasons == [reason]


def test_an_id_of_256_characters_passes() -> None:
    verdict = checks.Verdict(1)
    checks.ids(pa.array(["é" * 256]), "user_id", verdict, from_csv=False)
    assert verdict.passed.all()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON // 1000]),
        pa.array([NOON]),
        pa.array([NOON / 1000]),
        pa.array([str(NOON // 1000)]),
        pa.array([str(NOON)]),
        pa.array([Decimal(NOON // 1000)]),
        pa.array(["2024-05-01T12:00:00"]),
        pa.array(["2024-05-01 12:00:00Z"]),
        pa.array(["2024-05-01T14:00:00.000+02:00"]),
        pa.array([datetime(2024, 5, 1, 12)], pa.timestamp("us")),  # noqa: DTZ001 - the point is a time without a zone
        pa.array([NOON * 1_000_000], pa.timestamp("ns", "Europe/Berlin")),
    ],
)
def test_times_of_any_form_are_the_same_millisecond(column: pa.Array) -> None:
    verdict = checks.Verdict(1)
    assert checks.times(column, "timestamp", verdict).to_pylist() == [NOON]
    assert verdict.passed.all()


def test_dates_begin_at_midnight_utc_and_fractions_of_seconds_are_kept() -> None:
    verdict = checks.Verdict(1)
    assert checks.times(pa.array([date(2024, 5, 1)]), "timestamp", verdict).to_pylist() == [NOON - 12 * 3_600_000]
    assert checks.times(pa.array([1.2345]), "timestamp", verdict).to_pylist() == [1234]


def test_seconds_milliseconds_and_iso_text_may_be_mixed() -> None:
    verdict = checks.Verdict(3)
    column = pa.array([str(NOON), str(NOON // 1000), "2024-05-01T12:00:00Z"])
    assert checks.times(column, "timestamp", verdict).to_pylist() == [NOON] * 3


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "timestamp is missing"),
        ("", "timestamp is missing"),
        ("yesterday", "timestamp is neither a number nor an ISO 8601 time"),
        ("2024-13-01", "timestamp is neither a number nor an ISO 8601 time"),
        ("inf", "timestamp is not finite"),
        (float("inf"), "timestamp is not finite"),
        (float("nan"), "timestamp is missing"),
        (-1, "timestamp is negative"),
        ("1969-12-31", "timestamp is negative"),
        (NOON * 1000, "timestamp lies after the year 5138: not seconds, not milliseconds"),
    ],
)
def test_bad_times_are_refused(cell: Any, reason: str) -> None:
    verdict = checks.Verdict(1)
    column = pa.array([cell]) if cell is not None else pa.array([cell], pa.int64())
    checks.times(column, "timestamp", verdict)
    assert verdict.reasons == [reason]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("five", "rating is not a number"),
        ("", "rating is missing"),
        ("inf", "rating is not finite"),
        (float("-inf"), "rating is not finite"),
        (float("nan"), "rating is missing"),
    ],
)
def test_bad_values_are_refused(cell: Any, reason: str) -> None:
    verdict = checks.Verdict(1)
    checks.values(pa.array([cell]), "rating", verdict)
    assert verdict.reasons == [reason]


def test_numbers_texts_and_truth_values_are_values() -> None:
    assert checks.values(pa.array(["4.5", " 3 ", "1e1"]), "v", checks.Verdict(3)).to_pylist() == [4.5, 3.0, 10.0]
    assert checks.values(pa.array([True, False]), "v", checks.Verdict(2)).to_pylist() == [1.0, 0.0]


def test_a_row_is_refused_for_the_first_reason_only() -> None:
    verdict = checks.Verdict(3)
    checks.ids(pa.array(["", "a", ""]), "user_id", verdict, from_csv=False)
    checks.values(pa.array(["x", "y", "1"]), "value", verdict)
    assert verdict.reasons == ["user_id is empty", "value is not a number", "user_id is empty"]


@pytest.mark.parametrize("check", [checks.times, checks.values, checks.kinds])
def test_a_column_of_lists_is_refused_as_a_whole(check: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Column c holds list<.*Convert the column"):
        check(pa.array([[1]]), "c", checks.Verdict(1))
    with pytest.raises(InvalidInput, match="ids must be text or whole numbers"):
        checks.ids(pa.array([[1]]), "c", checks.Verdict(1), from_csv=False)
