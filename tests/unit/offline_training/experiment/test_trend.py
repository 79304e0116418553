"""What variants earned window by window, on a log that is counted by hand."""

from pathlib import Path

import pytest

from offline_training.experiment.outcomes import everybody
from offline_training.experiment.trend import trend
from streaming.settings import RewardSettings
from tests.experiment_log import LOG, decision, feedback, write_log

HOUR = 3_600_000
DAY = 24 * HOUR
BEGAN = 1_000 * DAY


def test_by_hand(tmp_path: Path) -> None:
    """Two users of a variant in the first day, one in the third; a tester, who counts nowhere."""
    first = decision("d0", "u0", "test=bold", BEGAN + 5 * HOUR, ["a", "b"])
    second = decision("d1", "u1", "test=bold", BEGAN + 6 * HOUR, ["a", "b"])
    third = decision("d2", "u0", "test=bold", BEGAN + 2 * DAY + 1, ["c", "new"])
    none = decision("d3", "u2", "default", BEGAN + 2 * DAY + 2, ["a"])
    tester = decision("d4", "u3", "test=bold!", BEGAN + 7 * HOUR, ["a"])
    likes = [feedback("f0", first, "a"), feedback("f1", third, "new"), feedback("f2", tester, "a")]
    write_log(tmp_path, [[first, second, third, none, tester, *likes]])
    found = trend(everybody(tmp_path, [LOG], BEGAN, RewardSettings()), {"new", "unseen"}, BEGAN + 3 * DAY - 1, 3)

    assert (found.since, found.until) == (BEGAN, BEGAN + 3 * DAY)
    bold, default = found.variants
    assert (bold.variant, default.variant) == ("test=bold", "default")
    assert (bold.whole.users, bold.whole.decisions, bold.whole.impressions) == (2, 3, 6)
    assert bold.whole.per_thousand is not None
    assert bold.whole.per_thousand.value == pytest.approx(1_000 / 3)  # 2 likes of 6 impressions
    days = [(one.users, one.per_thousand and one.per_thousand.value) for one in bold.windows]
    assert days == [(2, 250.0), (0, None), (1, 500.0)]
    # Rewards 1 and 0 of 2 impressions each around 1/4: influences 1/8 and -1/8, so that the standard error is 1/4
    # (statistics.ratio), and with one degree of freedom 12.7 of these to each side.
    earned = bold.windows[0].per_thousand
    assert earned is not None
    assert earned.high == pytest.approx(250 + 12.7062 * 250, rel=1e-4)
    assert bold.windows[2].per_thousand is not None
    assert bold.windows[2].per_thousand.low is None, "one user tells of no spread"
    assert found.new_items.items == 2
    assert found.new_items.shown == 1
    assert found.new_items.discovered == {1: 1, 3: 0, 5: 0}


@pytest.mark.parametrize(
    ("seconds", "length", "count"),
    [(90, 60_000, 2), (3_600, 5 * 60_000, 12), (86_400, 2 * HOUR, 12), (12 * 86_400, DAY, 12)],
)
def test_windows_are_round(tmp_path: Path, seconds: int, length: int, count: int) -> None:
    made = decision("d0", "u0", "default", BEGAN, ["a"])
    write_log(tmp_path, [[made]])
    found = trend(everybody(tmp_path, [LOG], BEGAN, RewardSettings()), (), BEGAN + seconds * 1_000 - 1)
    (one,) = found.variants
    assert {window.until - window.since for window in one.windows} == {length}
    assert len(one.windows) == count
    assert sum(window.impressions for window in one.windows) == 1
