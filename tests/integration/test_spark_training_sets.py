"""Training sets from small lakes whose right answers are known by hand."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Event, Feedback, Tick, Withdrawal
from feature_store.definitions import ITEM_TOKENS, UNKNOWN_ITEM, token_ids
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS
from offline_training.data.summary import TrainingSetSummary
from offline_training.data.training_sets import USER_EVENTS, build_training_sets
from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from streaming.fold import Fold
from streaming.settings import Aggregation, RewardSettings
from tests.events import decision, feedback
from tests.lakes import put, put_log

DAY = 86_400_000
REWARDS = RewardSettings(window_seconds=60)

Interaction = tuple[str, str, float, int]  # user, item, rating, time


def put_ratings(lake: Path, *ratings: Interaction) -> None:
    rows = [
        {"user": user, "item": item, "type": "rating", "value": value, "time": time}
        for user, item, value, time in ratings
    ]
    put(lake / "interactions" / "a-0.parquet", columns.INTERACTIONS, rows)


def put_written(lake: Path, item: str, time: int, written: int) -> None:
    """A rating of 5 by u that was written later than it was made."""
    row = {"user": "u", "item": item, "type": "rating", "value": 5.0, "time": time, "written": written}
    put(lake / "interactions" / f"late-{item}.parquet", columns.INTERACTIONS, [row])


def build(
    spark: SparkSession,
    lake: Path,
    *,
    training: TrainingSettings | None = None,
    rewards: RewardSettings = REWARDS,
    until_ms: int | None = None,
    exclude_items: frozenset[str] | None = None,
) -> tuple[Path, TrainingSetSummary]:
    out = lake.parent / "sets"
    summary = build_training_sets(
        spark,
        lake,
        out,
        training=training or TrainingSettings(list_length=0),
        rewards=rewards,
        until_ms=until_ms,
        exclude_items=exclude_items,
        progress=silent,
    )
    return out, summary


def read(out: Path, dataset: str, *key: str) -> dict[Any, dict[str, Any]]:
    rows = [row for file in sorted((out / dataset).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    found = {tuple(row[name] for name in key) if len(key) > 1 else row[key[0]]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_users_are_what_they_did_in_the_order_it_became_known(spark: SparkSession, lake: Path) -> None:
    put_ratings(
        lake,
        ("u", "f", 5, 60),
        ("u", "b", 3, 20),
        ("u", "d", 4, 30),
        ("u", "c", 4, 30),  # at the same time as d: by item
        ("u", "a", 5, 10),
        ("u", "a", 5, 50),
        ("v", "a", 5, 35),
    )
    out, summary = build(spark, lake)
    users = read(out, "users", "user")
    assert users["u"] == {
        "user": "u",
        "profile": [],
        "items": ["a", "b", "c", "d", "a", "f"],
        "kinds": ["rating+", "rating-", "rating+", "rating+", "rating+", "rating+"],
        "positives": [True, False, True, True, True, True],
        "times": [10, 20, 30, 30, 50, 60],
    }
    assert users["v"]["items"] == ["a"]
    assert summary == TrainingSetSummary(
        users=2,
        items=5,
        interactions=7,
        positives=6,
        impressions=0,
        first_time=10,
        last_time=60,
        validation_time=60,
    )
    assert TrainingSetSummary.load(out) == summary
    assert read(out, "impressions", "decision") == {}
    assert build(spark, lake) == (out, summary)  # in place of what was there
    assert read(out, "users", "user") == users
    assert not (out / "scratch").exists()


def known_before(user: dict[str, Any], moment: int) -> list[tuple[str, str]]:
    """Items and kinds that were known strictly before the moment."""
    done = zip(user["times"], user["items"], user["kinds"], strict=True)
    return [(item, kind) for time, item, kind in done if time < moment]


def test_nothing_is_visible_before_it_was_known(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "a", 5, 10), ("u", "same moment", 5, 50), ("u", "after", 5, 51))
    put_written(lake, "late", time=20, written=50)
    put_written(lake, "early", time=40, written=1)  # a row cannot have been known before it happened
    out, summary = build(spark, lake)
    user = read(out, "users", "user")["u"]
    assert (summary.first_time, summary.last_time) == (10, 51)
    before = [("a", "rating+"), ("early", "rating+")]
    assert known_before(user, 40) == before[:1]
    assert known_before(user, 50) == before, "neither what was written late nor what happens in the same moment"
    assert known_before(user, 51) == [*before, ("late", "rating+"), ("same moment", "rating+")]


@pytest.mark.parametrize(("last", "visible"), [(50, 0.0), (51, 1.0)])
def test_item_features_know_a_row_from_right_after_it_was_written(
    spark: SparkSession, lake: Path, last: int, visible: float
) -> None:
    put_ratings(lake, ("u", "a", 5, 10), ("u", "b", 5, 30), ("u", "last", 5, last))
    put_written(lake, "late", time=20, written=50)
    out, summary = build(spark, lake)
    assert summary.validation_time == last
    assert read(out, "items_at_validation", "item")["late"]["known"] == visible
    assert read(out, "items", "item")["late"]["known"] == 1


def test_until_is_a_time_of_knowing(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "a", 5, 10), ("u", "b", 5, 30), ("u", "c", 5, 60))
    put_written(lake, "late", time=20, written=50)
    _, summary = build(spark, lake, until_ms=50)
    assert summary.interactions == 2
    _, summary = build(spark, lake, until_ms=51)
    assert summary.interactions == 3


def test_feedback_is_visible_from_right_after_it_was_received(spark: SparkSession, lake: Path) -> None:
    """Also to the decision that it answers, and to those made before it came: their logged histories stay as they
    are."""
    first, second = decision("u", 100, ["x"]), decision("u", 150, ["y"], nonce=b"second78")
    user = first.user
    rows = [
        {"user": user, "item": item, "type": "rating", "value": 5.0, "time": time}
        for item, time in (("a", 10), ("b", 200), ("c", 201))
    ]
    put(lake / "interactions" / "a-0.parquet", columns.INTERACTIONS, rows)
    knew = {"history": ["a"], "history_kinds": ["rating+"], "history_times": [10]}
    decisions = [msgspec.structs.replace(made, **knew) for made in (first, second)]
    put_log(lake, *decisions, feedback(first, "x", received=200), feedback(second, "y", received=160))
    out, _ = build(spark, lake)
    found = read(out, "users", "user")[user]
    assert known_before(found, 160) == [("a", "rating+")]
    assert known_before(found, 161) == known_before(found, 200) == [("a", "rating+"), ("y", "click+")]
    assert known_before(found, 201)[2:] == [("b", "rating+"), ("x", "click+")]
    for impression in read(out, "impressions", "decision").values():
        assert {name: impression[name] for name in knew} == knew


def test_users_keep_their_newest_interactions(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, *(("u", f"i{t:04}", 5, t) for t in range(USER_EVENTS + 10)))
    out, _ = build(spark, lake)
    assert read(out, "users", "user")["u"]["times"] == list(range(10, USER_EVENTS + 10))


def test_the_newest_tenth_of_the_positives_is_for_validation(spark: SparkSession, lake: Path) -> None:
    times = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]  # the 19th of 20 is at 16
    put_ratings(lake, *((f"u{n}", "i", 5, time) for n, time in enumerate(times)), ("z", "i", 1, 99))
    _, summary = build(spark, lake)
    assert summary.validation_time == 16


def test_positives_that_begin_all_at_once_leave_some_for_training(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, *((f"u{n}", "i", 5, 7) for n in range(30)), ("v", "i", 5, 9))
    _, summary = build(spark, lake)
    assert summary.validation_time == 9


def test_item_features_as_of_two_moments(spark: SparkSession, lake: Path) -> None:
    old = [(f"u{n}", "a", 5.0, n * DAY) for n in range(9)]  # nine users like a, one a day
    put_ratings(
        lake,
        *old,
        ("u0", "a", 5, 9 * DAY),  # again, by the same user: counts once
        ("u1", "a", 1, 9 * DAY),
        ("u0", "late", 5, 20 * DAY),
    )
    out, summary = build(spark, lake, training=TrainingSettings(recent_days=14))
    assert summary.validation_time == 9 * DAY  # the 10th of 11 positives
    end = read(out, "items", "item")
    # As of just after day 20, the last 14 days begin just after day 6: users 7, 8 and 0.
    assert [end["a"][name] for name in ("popularity", "recent_popularity", "known")] == pytest.approx(
        [math.log(10), math.log(4), 1]
    )
    assert end["a"]["positive_rate"] == pytest.approx((10 + 10 * 11 / 12) / (11 + 10))
    assert end["late"]["positive_rate"] == pytest.approx((1 + 10 * 11 / 12) / (1 + 10))
    before = read(out, "items_at_validation", "item")
    # Strictly before day 9: nine likes of nine ratings, all within 14 days.
    assert [before["a"][name] for name in ("popularity", "recent_popularity", "positive_rate", "known")] == (
        pytest.approx([math.log(10), math.log(10), 1, 1])
    )
    names = ("popularity", "recent_popularity", "positive_rate", "known")
    assert [before["late"][name] for name in names] == UNKNOWN_ITEM.tolist()


def test_descriptions_and_profiles_become_tokens(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "used", 5, 1), ("u", "b", 5, 2), ("v", "b", 5, 3))
    item = {"item": "new", "title": "Die Ärzte", "categories": ["Punk"], "attributes": '{"year":1982}'}
    put(lake / "items" / "items.parquet", columns.ITEMS, [item])
    put(lake / "users" / "users.parquet", columns.USERS, [{"user": name, "attributes": '{"sex":"F"}'} for name in "uw"])
    out, _ = build(spark, lake)
    items = read(out, "items", "item")
    tokens = ["category=Punk", "title=die", "title=ärzte", "year=1980"]
    assert items["new"]["tokens"] == token_ids(tokens, ITEM_TOKENS).tolist()
    assert items["used"]["tokens"] == [0] * ITEM_TOKENS
    assert items["new"]["known"] == 0
    assert set(items) == {"used", "b", "new"} == set(read(out, "items_at_validation", "item"))
    users = read(out, "users", "user")
    assert {name: (row["profile"], row["items"]) for name, row in users.items()} == {
        "u": (["sex=f"], ["used", "b"]),
        "v": ([], ["b"]),
        "w": (["sex=f"], []),
    }


def test_excluded_and_deleted_items_are_nowhere(spark: SparkSession, lake: Path) -> None:
    put_ratings(
        lake, ("u", "a", 5, 1), ("u", "hidden", 5, 2), ("u", "deleted", 5, 3), ("u", "b", 5, 4), ("v", "b", 5, 5)
    )
    deletion = {"offset": 0, "time": 9, "item": "deleted", "deleted": True}
    put(lake / "catalogue" / "log=x" / "partition=0" / "0-1.parquet", columns.CATALOGUE, [deletion])
    shown = msgspec.structs.replace(
        decision("u", 100, ["hidden", "a", "c"], predicted=[0.1, 0.2, 0.3]),
        history=["hidden", "b", "deleted"],
        history_kinds=["rating+", "rating-", "rating+"],
        history_times=[3, 2, 1],
    )
    alone = decision("v", 100, ["hidden"])
    put_log(lake, shown, alone, feedback(shown, "hidden"), feedback(shown, "c", event="f"))
    out, summary = build(spark, lake, exclude_items=frozenset({"hidden"}))
    assert set(read(out, "items", "item")) == set(read(out, "items_at_validation", "item")) == {"a", "b", "c"}
    users = read(out, "users", "user")
    assert users["u"]["items"] == ["a", "b"]
    assert users["v"]["items"] == ["b"]
    assert users[shown.user]["items"] == ["c"]
    [impression] = read(out, "impressions", "decision").values()
    assert impression["items"] == ["a", "c"]
    assert impression["rewards"] == [0.0, 1.0]
    assert impression["predicted"] == [0.2, 0.3]
    assert (impression["history"], impression["history_kinds"], impression["history_times"]) == (
        ["b"],
        ["rating-"],
        [2],
    )
    assert summary.impressions == 1


def test_until_bounds_imported_interactions_only(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "a", 5, 1), ("u", "b", 5, 2), ("u", "c", 5, 3))
    shown = decision("u", 100, ["d"])
    put_log(lake, shown, feedback(shown, "d"))
    out, summary = build(spark, lake, until_ms=3)
    assert set(read(out, "items", "item")) == {"a", "b", "d"}
    assert (summary.interactions, summary.last_time) == (3, 1100)


def test_feedback_is_joined_as_documented(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "x", 5, 1), ("u", "y", 5, 2))
    d = decision("u", 1_000, ["a", "b", "c", "d", "e"], predicted=[0.1, 0.2, 0.3, 0.4, 0.5])
    quiet = decision("u", 2_000, ["a"], nonce=b"quiet678")
    viewed = decision("u", 3_000, ["a", "b", "c"], nonce=b"viewed78")
    unseen = decision("u", 4_000, ["a"], nonce=b"unseen78")
    put_log(
        lake,
        d,
        d,  # a producer that tried twice
        quiet,
        viewed,
        unseen,
        Withdrawal(decision=unseen.id, user=unseen.user, time=4_100),
        feedback(d, "a", event="1", received=60_999),  # the last millisecond of the window
        feedback(d, "b", event="2", received=61_000),  # one too late
        feedback(d, "c", "dislike", event="3"),
        feedback(d, "d", event="4", value=0.25),
        feedback(d, "d", event="4", value=0.9),  # the same event id again
        feedback(d, "e", event="5", value=0.25),
        feedback(d, "e", event="6", value=0.75, received=5_000),
        feedback(d, "e", event="7", value=0.9, received=6_000),
        feedback(d, "not shown", event="8"),
        feedback(d, "c", "undeclared", event="9"),
        feedback(d, "c", event="10", value=float("nan")),
        feedback(viewed, "b", "view", event="1"),
        feedback(viewed, "c", event="2"),
    )
    out, summary = build(spark, lake)
    impressions = read(out, "impressions", "decision")
    assert impressions.keys() == {d.id, quiet.id, viewed.id}
    assert impressions[d.id]["items"] == ["a", "b", "c", "d", "e"]
    assert impressions[d.id]["rewards"] == [1.0, 0.0, 0.0, 0.25, 0.9]
    assert impressions[d.id]["places"] == [0, 1, 2, 3, 4]
    assert impressions[d.id]["clicked"] == [True, False, True, True, True]
    assert impressions[d.id]["predicted"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert impressions[d.id]["probabilities"] == [1.0] * 5
    assert impressions[quiet.id]["rewards"] == [0.0]
    assert impressions[quiet.id]["clicked"] == [False]
    # This client reports views, and reported nothing of a: it was not seen.
    assert impressions[viewed.id]["items"] == ["b", "c"]
    assert impressions[viewed.id]["rewards"] == [0.0, 1.0]
    assert impressions[viewed.id]["places"] == [1, 2]
    assert impressions[viewed.id]["clicked"] == [False, True]
    done = read(out, "users", "user")[d.user]
    assert list(zip(done["items"], done["kinds"], done["times"], strict=True)) == [
        ("c", "dislike-", 2_000),
        ("d", "click-", 2_000),
        ("e", "click-", 2_000),
        ("c", "click+", 4_000),
        ("e", "click+", 5_000),
        ("e", "click+", 6_000),
        ("a", "click+", 60_999),
    ]
    assert (summary.interactions, summary.positives) == (2 + 7, 2 + 4)
    assert read(out, "items", "item")["a"]["popularity"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_what_is_trained_on_is_what_the_bandit_learnt(
    spark: SparkSession, lake: Path, aggregation: Aggregation
) -> None:
    """A random log, joined by Spark and by the fold: the same trials and rewards per item, the same
    histories."""
    rng = np.random.default_rng(7)
    settings = RewardSettings(
        weights={"view": 0.2, "click": 0.4, "buy": 1.0, "dislike": -1.0},
        thresholds={"buy": 1.0},
        aggregation=aggregation,
        minimum=-0.5,
        silence=-0.1,
        window_seconds=60,
    )
    events: list[Event] = []
    for n in range(80):
        slate = [str(item) for item in rng.choice(8, size=3, replace=False)]
        shown = decision(f"user{n % 5}", n * 1_000, slate, nonce=n.to_bytes(8, "big"))
        events.append(shown)
        for _ in range(rng.integers(0, 6)):
            theirs = shown if rng.random() < 0.9 else msgspec.structs.replace(shown, user="somebody")
            events.append(
                feedback(
                    theirs,
                    str(rng.choice([*slate, "other"])),
                    str(rng.choice(["view", "click", "buy", "dislike", "unknown"], p=[0.3, 0.2, 0.35, 0.1, 0.05])),
                    event=str(rng.integers(0, 4)),
                    received=shown.time + int(rng.integers(0, 80_000)),
                    value=float(rng.choice([0.5, 1.0, 2.0])),
                )
            )
    events.sort(key=lambda event: event.received if isinstance(event, Feedback) else event.time)
    put_ratings(lake, ("u", "x", 5, 1), ("u", "y", 5, 2))
    put_log(lake, *events)
    out, _ = build(spark, lake, rewards=settings)

    namespace = Namespace(
        id="r-1", release="r", log="x", offsets=[0], created=0, graph=Graph(1), base=NO_ROWS, starts=[Start()]
    )
    fold = Fold(namespace, settings, Start())
    fold.apply([*events, Tick(time=10_000_000)])
    trials: dict[str, list[float]] = {}
    for row in read(out, "impressions", "decision").values():
        for item, reward in zip(row["items"], row["rewards"], strict=True):
            trials.setdefault(item, []).append(reward)
    for item, rewards in trials.items():
        _, resolved, total, squares, _ = fold.sums.get(item)
        assert len(rewards) == resolved
        assert sum(rewards) == pytest.approx(total, abs=1e-9)
        assert sum(reward**2 for reward in rewards) == pytest.approx(squares, abs=1e-9)
    online = {(user, *event) for user, event in fold.take().history}
    users = read(out, "users", "user")
    assert users.pop("u")["items"] == ["x", "y"]
    offline = {
        (row["user"], *event)
        for row in users.values()
        for event in zip(row["items"], row["kinds"], row["times"], strict=True)
    }
    assert len(offline) > 50
    assert offline == online


def test_a_lake_without_anything_to_learn_is_explained(spark: SparkSession, lake: Path) -> None:
    with pytest.raises(InvalidInput, match=r"lake holds no interactions\. Import some with `matchloop import DIR`"):
        build(spark, lake)
    put_ratings(lake, ("u", "a", 5, 50))
    with pytest.raises(InvalidInput, match="holds no interactions before 50 ms"):
        build(spark, lake, until_ms=50)
    with pytest.raises(InvalidInput, match="All 1 positive interactions have the same time, 50 ms"):
        build(spark, lake)
    put_ratings(lake, ("u", "a", 3.5, 50))
    with pytest.raises(InvalidInput, match=r"None of the interactions is positive.*'rating': 4.0"):
        build(spark, lake)
