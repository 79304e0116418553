"""Columns against rows: the same log read by Arrow and, decision by decision, by impressions.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event, Withdrawal
from feature_store.contracts.experiments import Experiment, Variant, variant_in
from offline_training.experiment.impressions import rewarded_decisions
from offline_training.experiment.outcomes import BEFORE_MS, SKEW_MS, Outcomes, everybody, outcomes, slates_before
from streaming.settings import Aggregation, RewardSettings
from tests.experiment_log import LOG, decision, feedback, running, users_of, write_log

EXPERIMENT = running(started=BEFORE_MS)
START = BEFORE_MS
CONTROL, TREATMENT = users_of(EXPERIMENT, "control", 4), users_of(EXPERIMENT, "treatment", 4)
KINDS = ("view", "like", "dislike", "watch", "undeclared")


def by_user(found: Outcomes, column: str) -> dict[str, float]:
    return dict(zip(found.users.to_pylist(), found.sums()[column].tolist(), strict=True))


def read(lake: Path, experiment: Experiment = EXPERIMENT, rewards: RewardSettings | None = None) -> Outcomes:
    return outcomes(lake, [LOG], experiment, rewards or RewardSettings())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32), aggregation=st.sampled_from(list(Aggregation)))
def test_columns_say_what_rows_say(
    tmp_path_factory: pytest.TempPathFactory, seed: int, aggregation: Aggregation
) -> None:
    rng = np.random.default_rng(seed)
    rewards = RewardSettings(
        aggregation=aggregation, thresholds={"watch": 0.5}, silence=0.1, minimum=-0.5, weights={
            "view": 0.0, "like": 1.0, "dislike": -0.3, "watch": 0.7
        },
    )  # fmt: skip
    partitions: list[list[Event]] = [[], []]
    for n in range(int(rng.integers(1, 15))):
        arm = rng.integers(2)
        user = [CONTROL, TREATMENT][arm][rng.integers(4)]
        partition = partitions[int(user[1:]) % 2]
        items = [f"i{k}" for k in rng.choice(6, size=rng.integers(0, 5), replace=False)]
        name = "test=" + ["control", "treatment"][arm]
        made = decision(f"d{n}", user, name, START + n, items, shown=int(rng.integers(0, len(items) + 1)))
        partition.append(made)
        for _ in range(int(rng.integers(0, 6))):
            received = START + int(rng.choice([n, 1_800_000 - 1 + n, 1_800_000 + n]))
            kind, value = KINDS[rng.integers(5)], float(rng.choice([0.2, 0.5, 1.0, 2.0]))
            item = f"i{rng.integers(6)}"
            partition.append(feedback(f"f{rng.integers(4)}", made, item, kind, value, received))
        if rng.random() < 0.1:
            partition.append(Withdrawal(decision=f"d{n}", user=user, time=START))
    lake = tmp_path_factory.mktemp("lake")
    write_log(lake, partitions)
    try:
        rows = rewarded_decisions(lake, [LOG], rewards)
    except InvalidInput:
        with pytest.raises(InvalidInput):
            read(lake, rewards=rewards)
        return
    found = read(lake, rewards=rewards)
    names = ("decisions", "impressions", "reward", "positives", "successes")
    wanted: dict[str, Any] = {name: dict.fromkeys(found.users.to_pylist(), 0.0) for name in names}
    for row in rows:
        wanted["decisions"][row.user] += 1
        wanted["impressions"][row.user] += len(row.shown)
        wanted["reward"][row.user] += row.rewards.sum()
        wanted["positives"][row.user] += (row.rewards >= 0.5).sum()
        wanted["successes"][row.user] += (row.rewards >= 0.5).any()
        assert variant_in(row.variant, "test") == found.variants[found.variant[found.users.to_pylist().index(row.user)]]
    for name, sums in wanted.items():
        assert by_user(found, name) == pytest.approx(sums), name


def test_what_does_not_count_is_counted(tmp_path: Path) -> None:
    stopped = EXPERIMENT.model_copy(update={"stopped": START + 10})
    one, other = CONTROL[0], TREATMENT[0]
    good = decision("good", one, "test=control", START, ["a"])
    events: list[Event] = [
        good,
        decision("good", one, "test=control", START + 1, ["a", "b"]),
        decision("early", one, "test=control", START - SKEW_MS - 1, ["a"]),
        decision("late", one, "test=control", START + SKEW_MS + 11, ["a"]),
        decision("gone", one, "test=vanished", START, ["a"]),
        decision("moved", other, "test=control", START, ["a"]),
        decision("tester", other, "test=treatment!", START, ["a"]),
        decision("skewed", other, "more=x+test=treatment", START - SKEW_MS, ["a", "b"]),
        decision("elsewhere", one, "another=control", START, ["a"]),
        feedback("f", good, "a"),
    ]
    write_log(tmp_path, [events])
    found = read(tmp_path, stopped)
    assert found.left_out == {"duplicate": 1, "out_of_time": 2, "unknown_variant": 1, "moved": 1, "tester": 1}
    assert by_user(found, "impressions") == {one: 1.0, other: 2.0}
    assert by_user(found, "reward") == {one: 1.0, other: 0.0}


def test_what_users_did_before_is_known_and_counts_apart(tmp_path: Path) -> None:
    user = CONTROL[0]
    before = decision("before", user, "default", START - 5, ["a", "b"])
    events: list[Event] = [
        decision("long ago", user, "default", START - BEFORE_MS - 1, ["a"]),
        before,
        feedback("f", before, "b"),
        decision("now", user, "test=control", START + 5, ["a"], latency_ms=7.0),
        decision("stranger", "u99", "default", START - 5, ["a"]),
    ]
    write_log(tmp_path, [events])
    found = read(tmp_path)
    assert {name: column.tolist() for name, column in found.before.items()} == {
        "reward": [1.0], "impressions": [2.0], "decisions": [1.0]
    }  # fmt: skip
    assert found.sums()["decisions"].tolist() == [1.0]
    assert (found.sums()["latency"].tolist(), found.sums()["timed"].tolist()) == ([7.0], [1.0])


def test_sums_until_a_time(tmp_path: Path) -> None:
    first = decision("d1", CONTROL[0], "test=control", START, ["a", "b"])
    second = decision("d2", CONTROL[0], "test=control", START + 9, ["a"])
    other = decision("d3", CONTROL[1], "test=control", START + 9, ["a"])
    write_log(tmp_path, [[first, second, other, feedback("f", second, "a")]])
    found = read(tmp_path)
    early, late = found.sums(found.time <= START + 8), found.sums()
    assert early["impressions"].tolist() == [2, 0]
    assert early["users"].tolist() == [1, 0]
    assert late["impressions"].tolist() == [3, 1]
    assert late["different_items"].tolist() == [2, 1]
    assert late["reward"].tolist() == [1, 0]


def test_slates_before_are_counted_by_user(tmp_path: Path) -> None:
    made = [decision(f"d{n}", CONTROL[user], "test=control", START + n, ["a"]) for n, user in enumerate((0, 1, 0, 0))]
    write_log(tmp_path, [made])
    assert slates_before(read(tmp_path)).tolist() == [0, 0, 1, 2]


def test_a_user_of_two_logs_is_one(tmp_path: Path) -> None:
    for log in ("L", "M"):
        write_log(tmp_path, [[decision(f"d{log}", CONTROL[0], "test=control", START, ["a"])]], log)
    found = outcomes(tmp_path, ["L", "M"], EXPERIMENT, RewardSettings())
    assert by_user(found, "decisions") == {CONTROL[0]: 2.0}


def test_nobody_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path, [[decision("d", CONTROL[0], "default", START, ["a"])]])
    with pytest.raises(InvalidInput, match="no decision on users of experiment 'test'"):
        read(tmp_path)
    with pytest.raises(InvalidInput, match="nothing to plan from"):
        everybody(tmp_path, [LOG], START + 1, RewardSettings())
    assert len(everybody(tmp_path, [LOG], START, RewardSettings()).users) == 1


def test_an_unused_variant_is_no_obstacle(tmp_path: Path) -> None:
    three = running(started=START, variants=tuple(Variant(name=name) for name in ("control", "treatment", "third")))
    user = users_of(three, "third", 1)[0]
    write_log(tmp_path, [[decision("d", user, "test=third", START, ["a"])]])
    found = read(tmp_path, three)
    assert found.variant.tolist() == [2]
