"""Decisions of the lake with what came of them, from an offset on."""

from pathlib import Path

import msgspec
import numpy as np

from feature_store.bandit_state import Position
from feature_store.definitions import HistoryEvent
from offline_training.experiment.impressions import rewarded_since
from streaming.settings import RewardSettings
from tests.events import decision, feedback
from tests.lakes import put_log

LOG = "x-y"


def test_only_decisions_behind_the_watermark_count_with_what_they_were_made_with(tmp_path: Path) -> None:
    earlier = decision("ada", 1_000, ["a", "b"], nonce=b"earlier0")
    later = msgspec.structs.replace(
        decision("ada", 2_000, ["a", "b", "c"], predicted=[0.3, 0.2, 0.1], release="r2"),
        history=["z"], history_kinds=["click+"], history_times=[5], profile=["age=7"],
    )  # fmt: skip
    put_log(tmp_path, earlier, later)
    put_log(tmp_path, feedback(earlier, "b"), feedback(later, "b", event="1"), start=2)
    [found] = rewarded_since(tmp_path, [Position(LOG, 1), Position(LOG, 0)], RewardSettings())
    assert (found.release, found.shown, found.rewards.tolist()) == ("r2", ["a", "b", "c"], [0, 1, 0])
    assert found.predicted.tolist() == [0.3, 0.2, 0.1]
    assert (found.history, found.profile) == ([HistoryEvent("z", "click+", 5)], ["age=7"])
    assert found.seen.all(), "its client reports no views: what nothing came of was passed over"
    assert rewarded_since(tmp_path, [Position(LOG, 2)], RewardSettings()) == []
    assert rewarded_since(tmp_path, [Position("another", 0)], RewardSettings()) == []


def test_what_was_not_seen_is_told_from_what_was_passed_over(tmp_path: Path) -> None:
    made = decision("ada", 1_000, ["a", "b", "c"])
    put_log(tmp_path, made, feedback(made, "a", "view", event="1"), feedback(made, "b", "click", event="2"))
    [found] = rewarded_since(tmp_path, [Position(LOG, 0)], RewardSettings())
    assert np.array_equal(found.seen, [True, True, False])
    assert found.rewards.tolist() == [0, 1, 0]
