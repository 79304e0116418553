"""When a cron expression is due: against the calendar of 2026, whose first day is a Thursday."""

from datetime import UTC, datetime

import pytest

from feature_store.contracts.errors import InvalidInput
from infra.schedule.calendar import Calendar


def ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 */4 * * *", (2026, 1, 1, 3, 59), (2026, 1, 1, 4, 0)),
        ("0 */4 * * *", (2026, 1, 1, 4, 0), (2026, 1, 1, 8, 0)),  # a time is later than itself
        ("30 2 15 * *", (2026, 1, 15, 2, 31), (2026, 2, 15, 2, 30)),
        ("0 5 * * 0", (2026, 1, 1, 0, 0), (2026, 1, 4, 5, 0)),  # Sunday, as cron counts
        ("0 5 * * 7", (2026, 1, 1, 0, 0), (2026, 1, 4, 5, 0)),
        ("0 5 * * 1", (2026, 1, 1, 0, 0), (2026, 1, 5, 5, 0)),
        ("0 5 * * mon-fri", (2026, 1, 2, 6, 0), (2026, 1, 5, 5, 0)),
        ("0 5 * * 0-1", (2026, 1, 4, 6, 0), (2026, 1, 5, 5, 0)),  # across what others take for a week's end
        ("0 5 * * 5-7", (2026, 1, 3, 6, 0), (2026, 1, 4, 5, 0)),
        ("0 5 * * 1,3", (2026, 1, 5, 6, 0), (2026, 1, 7, 5, 0)),
        ("0 5 * * */3", (2026, 1, 1, 0, 0), (2026, 1, 3, 5, 0)),  # Sunday, Wednesday, Saturday
        ("0 0 29 2 *", (2026, 1, 1, 0, 0), (2028, 2, 29, 0, 0)),
    ],
)
def test_it_is_due_when_cron_says(cron: str, after: tuple[int, ...], due: tuple[int, ...]) -> None:
    assert Calendar(cron).after(ms(*after)) == ms(*due)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("hourly", "it has 1 fields, not 5"),
        ("0 0 0 * * *", "it has 6 fields"),
        ("61 * * * *", "'61 \\* \\* \\* \\*' is not a cron expression"),
        ("* * * * 8", "'8' is no weekday"),
        ("* * * * fri-mon", "'fri-mon' is no weekday"),
        ("0 0 13 * 5", "days of the month and of the week"),
    ],
)
def test_what_is_none_is_refused_with_an_example(cron: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=rf"{said}.*0 \*/4 \* \* \* for every four hours"):
        Calendar(cron)
