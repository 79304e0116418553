"""What a release answered unseen, beside what was shown: by hand."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from feature_store.contracts.columns import SHADOW
from feature_store.contracts.events import Decision
from offline_training.experiment.shadow import shadow_comparison
from streaming.settings import RewardSettings
from tests.events import decision, feedback
from tests.lakes import put, put_log


def answered(of: Decision, items: list[str], predicted: list[float]) -> dict[str, Any]:
    return {
        "decision": of.id, "user": of.user, "time": of.time, "champion": of.release, "shown": of.items,
        "shown_predicted": of.predicted, "shown_predicted_unseen": [0.1, None], "items": items,
        "predicted": predicted, "champion_predicted": [0.3, None],
    }  # fmt: skip


def test_slates_are_compared_and_what_it_would_have_earned_is_weighed(tmp_path: Path) -> None:
    """Two slots. Once it fills both alike, once the first alone, once neither, though with the same items."""
    shown = [
        msgspec.structs.replace(
            decision(user, 1_000, ["a", "b"], predicted=[0.4, 0.2], release="champion"), probabilities=[0.5, 0.5]
        )
        for user in ("ada", "bob", "cyd")
    ]
    unseen = [["a", "b"], ["a", "c"], ["b", "a"]]
    rows = [answered(of, items, [0.6, 0.2]) for of, items in zip(shown, unseen, strict=True)]
    put(tmp_path / "shadow" / "r" / "1.parquet", SHADOW, rows)
    put_log(tmp_path / "lake", *shown, feedback(shown[0], "b"), feedback(shown[2], "a"))
    found = shadow_comparison(tmp_path / "shadow", tmp_path / "lake", "r", "champion", RewardSettings())
    assert found is not None
    assert (found.requests, found.users) == (3, 3)
    assert found.overlap.value == pytest.approx((2 + 1 + 2) / 6)
    assert found.same_place.value == pytest.approx((2 + 1 + 0) / 6)
    assert found.expected == {
        "r of its own": pytest.approx(0.4), "r of champion's": pytest.approx(0.1),
        "champion of its own": pytest.approx(0.3), "champion of r's": pytest.approx(0.3),
    }  # fmt: skip
    assert found.earned is not None
    assert found.earned.value == pytest.approx(2 / 6)
    assert found.off_policy is not None
    estimates = {one.estimator: one.value.value for one in found.off_policy.estimates}
    # The second slot of the first slate alone counts: 1 / (0.5 * 0.5) = 4 times, over 6 slots.
    assert estimates["RIPS"] == pytest.approx(4 / 6)
    assert shadow_comparison(tmp_path / "shadow", tmp_path / "lake", "r", "another", RewardSettings()) is None
    assert shadow_comparison(tmp_path / "shadow", tmp_path / "lake", "another", "r", RewardSettings()) is None


def test_a_champion_that_did_not_explore_says_nothing_of_another_policy(tmp_path: Path) -> None:
    shown = decision("ada", 1_000, ["a", "b"], release="champion")
    put(tmp_path / "shadow" / "r" / "1.parquet", SHADOW, [answered(shown, ["a"], [0.5])])
    put_log(tmp_path / "lake", shown)
    found = shadow_comparison(tmp_path / "shadow", tmp_path / "lake", "r", "champion", RewardSettings())
    assert found is not None
    assert found.off_policy is None
    assert found.same_place.value == 1 / 2
