"""A hand-made log in the lake, small enough to count on fingers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Decision, Feedback
from feature_store.contracts.experiments import Plan, Variant
from offline_training.experiment.impressions import RewardedDecision, rewarded_decisions
from offline_training.experiment.loop_metrics import (
    cumulative_reward,
    discovery,
    discovery_curve,
    explored_share,
    loop_metrics,
    reward_over_time,
)
from streaming.settings import Aggregation, BanditSettings, RewardSettings

EXPERIMENT = Plan(
    name="test",
    variants=(
        Variant(name="frozen", weight=0.4, bandit={"mode": "off"}),
        Variant(name="explore", weight=0.4),
        Variant(name="greedy", weight=0.2, bandit={"mode": "greedy"}),
    ),
)


def decision(
    name: str, user: str, variant: str, time: int, items: list[str], shown: int, mean: list[float]
) -> Decision:
    return Decision(
        id=name,
        user=user,
        time=time,
        surface="home",
        release="r",
        namespace="n",
        variant=variant,
        learns=variant != "frozen",
        offsets=[0],
        clusters=[0],
        weights=[1.0],
        history=[],
        history_kinds=[],
        history_times=[],
        profile=[],
        items=items,
        shown=shown,
        sources=["index"] * len(items),
        predicted=mean,
        mean=mean,
        bonus=[0.1] * len(items),
        edges=[1] * len(items),
        probabilities=[0.5] * shown,
    )


def feedback(name: str, of: str, item: str, kind: str, value: float, received: int, user: str = "u") -> Feedback:
    return Feedback(
        id=name, decision=of, user=user, item=item, type=kind, value=value, time=received, received=received
    )


def write(lake: Path, partition: int, files: Sequence[Sequence[Decision | Feedback]], log: str = "L") -> None:
    folder = lake / "events" / f"log={log}" / f"partition={partition}"
    folder.mkdir(parents=True)
    offset = 0
    for events in files:
        rows: list[dict[str, Any]] = []
        for event in events:
            kind = "decision" if isinstance(event, Decision) else "feedback"
            rows.append({"offset": offset + len(rows), "position": 0, "kind": kind, **msgspec.structs.asdict(event)})
        name = f"{offset}-{offset + len(rows)}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, EVENTS), folder / name)
        offset += len(rows)


SECOND = 1_000
WINDOW = 1_800 * SECOND


def test_feedback_is_joined_within_its_window_and_once_per_id(tmp_path: Path) -> None:
    first = decision("d1", "u", "explore", 0, ["a", "b", "c"], 3, [0.3, 0.2, 0.1])
    events = [
        feedback("v", "d1", "a", "view", 1, 5),
        feedback("l", "d1", "a", "like", 1, 10),
        feedback("l", "d1", "b", "like", 1, 11),  # the same id again
        feedback("in", "d1", "b", "like", 0.5, WINDOW - 1),
        feedback("late", "d1", "c", "like", 1, WINDOW),
        feedback("odd", "d1", "c", "undeclared", 1, 12),
        feedback("lost", "d9", "c", "like", 1, 12),
        feedback("theirs", "d1", "c", "like", 1, 12, "another"),
    ]
    write(tmp_path, 0, [[first, *events[:2]], list(events[2:])])
    (found,) = rewarded_decisions(tmp_path, ["L"], RewardSettings())
    assert found.rewards.tolist() == [1.0, 0.5, 0.0]
    assert (found.shown, found.user, found.variant) == (["a", "b", "c"], "u", "explore")


def test_the_latest_event_is_the_latest_in_the_log_across_files(tmp_path: Path) -> None:
    # Ten files, so that an order by name would put 10-11 before 2-3.
    likes = [feedback(f"f{n}", "d1", "a", "like", n / 20, n) for n in range(1, 12)]
    write(tmp_path, 0, [[decision("d1", "u", "explore", 0, ["a"], 1, [0.1])], *[[like] for like in likes]])
    (found,) = rewarded_decisions(tmp_path, ["L"], RewardSettings(aggregation=Aggregation.LATEST))
    assert found.rewards.tolist() == [11 / 20]


def test_silence_has_its_own_reward(tmp_path: Path) -> None:
    write(tmp_path, 0, [[decision("d1", "u", "explore", 0, ["a"], 1, [0.1])]])
    (found,) = rewarded_decisions(tmp_path, ["L"], RewardSettings(silence=0.25))
    assert found.rewards.tolist() == [0.25]


def test_only_the_named_logs_count(tmp_path: Path) -> None:
    write(tmp_path, 0, [[decision("d1", "u", "explore", 7, ["a"], 1, [0.1])]])
    write(tmp_path, 1, [[decision("d2", "u", "explore", 3, ["a"], 1, [0.1])]])
    write(tmp_path, 0, [[decision("d3", "u", "explore", 0, ["a"], 1, [0.1])]], log="older")
    assert [d.time for d in rewarded_decisions(tmp_path, ["L"], RewardSettings())] == [3, 7]
    with pytest.raises(InvalidInput, match="no decisions of the logs"):
        rewarded_decisions(tmp_path, ["another"], RewardSettings())


def rewarded(
    shown: list[str], rewards: list[float], time: int = 0, mean: list[float] | None = None
) -> RewardedDecision:
    means = np.array(mean if mean is not None else [0.0] * len(shown))
    n = len(shown)
    return RewardedDecision(
        "d", "u", time, "home", "explore", "r", shown, means, means, np.zeros(len(means)), np.ones(n),
        np.array(rewards), np.ones(n, np.bool_),
    )  # fmt: skip


def test_explored_share_counts_what_was_not_the_best_left() -> None:
    # .5 while .9 is left: explored. Then .9: best. Then .2 while .3 is left: explored. A tie is no exploration.
    found = explored_share("explore", [rewarded(["a", "b", "c"], [0, 0, 0], mean=[0.5, 0.9, 0.2, 0.3])], 0.2)
    assert found.explored == pytest.approx(2 / 3)
    assert explored_share("explore", [rewarded(["a"], [0], mean=[0.5, 0.5])], 0.2).explored == 0


def test_what_rules_left_to_be_the_best_is_not_explored() -> None:
    ruled = replace(rewarded(["a", "b"], [0, 0], mean=[0.5, 0.2, 0.9]), greedy=np.array([1.0, 0.0]))
    ruled = replace(ruled, greedy_mean=np.array([0.5, 0.9]))
    assert explored_share("explore", [ruled], 0.2).explored == 0.5


def test_discovery_counts_new_items_by_positive_interactions() -> None:
    explore = [rewarded(["n1", "old"], [1, 1]), rewarded(["n1", "n2"], [1, 0.4]), rewarded(["n1", "n2"], [1, 1])]
    small = [rewarded(["n2", "old"], [1, 1])]
    big, little = discovery({"explore": explore, "greedy": small}, ["n1", "n2", "n3"], 0.5)
    assert (big.impressions, big.impressions_of_new) == (6, 5)
    assert big.discovered == {1: 2, 3: 1, 5: 0}
    assert big.per_thousand[1] == pytest.approx(2 / 6 * 1_000)
    # As many impressions as the small arm: one of the three decisions, the first.
    assert big.at_equal_impressions == {1: 1, 3: 0, 5: 0}
    assert little.discovered == little.at_equal_impressions == {1: 1, 3: 0, 5: 0}


def test_curves_by_hand() -> None:
    decisions = [
        rewarded(["n1", "x"], [1, 0], time=0),
        rewarded(["y", "z"], [0, 0], time=9_000),
        rewarded(["n2", "n1"], [1, 1], time=10_000),
    ]
    cumulative = cumulative_reward("explore", decisions)
    assert cumulative.x == [1, 2, 3]
    assert cumulative.y == pytest.approx([500, 250, 500])
    found = discovery_curve("explore", decisions, ["n1", "n2"], 0.5)
    assert (found.x, found.y) == ([0, 2, 4, 6], [0, 1, 1, 2])
    late, early = reward_over_time({"explore": decisions[2:], "greedy": decisions[:2]}, windows=2)
    assert (late.variant, late.x, late.y) == ("explore", [2.25], [1_000])  # of three, the middle of the last half
    assert (early.variant, early.x, early.y) == ("greedy", [0.75], [250])


def test_a_whole_loop(tmp_path: Path) -> None:
    events: list[Decision | Feedback] = []
    rng = np.random.default_rng(1)
    for n in range(60):
        variant = ("frozen", "explore", "greedy")[n % 3]
        rest = 2 if variant == "explore" else 0
        items = [f"i{k}" for k in range(2 + rest)]
        mean = [0.4, 0.3, 0.2, 0.1][: 2 + rest]
        events.append(decision(f"d{n}", f"u{n % 30}", f"test={variant}", n * SECOND, items, 2, mean))
        liked = [k for k in range(2) if rng.random() < 0.5]
        events += [feedback(f"e{k}", f"d{n}", f"i{k}", "like", 1, n * SECOND, f"u{n % 30}") for k in liked]
    stranger = decision("d60", "stranger", "test=greedy", 30 * SECOND, ["i0"], 1, [0.4])
    write(tmp_path, 0, [[*events, stranger]])
    found = loop_metrics(
        tmp_path,
        ["L"],
        EXPERIMENT,
        "frozen",
        RewardSettings(),
        BanditSettings(explore_share=0.9, explore_share_by_surface={"home": 0.2}),
        ["i1", "i9"],
        planned_users=30,
        seed=0,
        people={f"u{n}": f"person {n // 3}" for n in range(30)},
    )
    likes = sum(isinstance(event, Feedback) for event in events)
    assert (found.decisions, found.impressions, found.reward, found.seconds) == (60, 120, likes, 59)
    assert [arm.variant for arm in found.comparison.arms] == ["frozen", "explore", "greedy"]
    assert [d.variant for d in found.comparison.differences] == ["explore", "greedy"]
    assert all(change.paired is not None for change in found.comparison.differences)
    assert found.exploring is not None
    assert (found.exploring.variant, found.exploring.control) == ("explore", "greedy")
    of = {arm.variant: arm.per_thousand.value for arm in found.comparison.arms}
    assert found.exploring.planned.value == pytest.approx(of["explore"] - of["greedy"])
    assert (found.explorer, found.greedy, found.new_items) == ("explore", "greedy", 2)
    assert [share.explored for share in found.exploration] == [0, 0, 0]
    assert [share.configured for share in found.exploration] == pytest.approx([0, 0.2, 0])
    assert found.off_policy is not None
    assert found.off_policy.decisions == 20
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
