"""What counts as data that is gone."""

import pytest

from offline_training.data.shrinking import shrunk
from offline_training.data.summary import TrainingSetSummary

BEFORE = {"users": 100, "items": 50, "interactions": 1_000, "positives": 600}


def now(**changed: int) -> TrainingSetSummary:
    counts = BEFORE | changed
    return TrainingSetSummary(impressions=0, first_time=0, last_time=1, validation_time=1, **counts)


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (now(), []),
        (now(users=81, items=500), []),
        (now(users=80), ["80 users where there were 100"]),
        (now(interactions=799), ["799 rows of interactions where there were 1,000"]),
        (now(items=1, positives=0), ["1 items where there were 50", "0 positive interactions where there were 600"]),
    ],
)
def test_a_fall_by_a_fifth_is_told(summary: TrainingSetSummary, said: list[str]) -> None:
    assert shrunk(summary, BEFORE) == said


def test_there_is_nothing_to_lose_where_nothing_was() -> None:
    assert shrunk(now(users=0), {"users": 0}) == []
