"""Training sets from small lakes whose right answers are known by hand."""

import math
from pathlib import Path

import msgspec
import pytest
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Erasure, Merge, Profile
from feature_store.definitions import ITEM_TOKENS, UNKNOWN_ITEM, token_ids
from offline_training.data.summary import TrainingSetSummary
from offline_training.data.training_sets import USER_EVENTS
from offline_training.settings import TrainingSettings
from tests.events import KEYRING, decision, feedback, interaction
from tests.lakes import put, put_log
from tests.training_sets import build, known_before, put_ratings, read

DAY = 86_400_000


def put_written(lake: Path, item: str, time: int, written: int) -> None:
    """A rating of 5 by u that was written later than it was made."""
    row = {"user": "u", "item": item, "type": "rating", "value": 5.0, "time": time, "written": written}
    put(lake / "interactions" / f"late-{item}.parquet", columns.INTERACTIONS, [row])


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_users_are_what_they_did_in_the_order_it_became_known(spark: SparkSession, lake: Path) -> None:
    put_ratings(
        lake,
        ("u", "f", 5, 60),
        ("u", "b", 3, 20),
        ("u", "d", 4, 30),
        ("u", "d", 5, 30),  # the same event: once
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
        "profile_time": 0,
        "items": ["a", "b", "c", "d", "a", "f"],
        "kinds": ["rating+", "rating-", "rating+", "rating+", "rating+", "rating+"],
        "positives": [True, False, True, True, True, True],
        "times": [10, 20, 30, 30, 50, 60],
    }
    assert users["v"]["items"] == ["a"]
    assert summary == TrainingSetSummary(
        users=2,
        items=5,
        interactions=8,
        positives=7,
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


def test_the_newest_profile_counts_imported_or_put(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "a", 5, 1), ("u", "b", 5, 2))
    imported = [
        {"user": "older", "attributes": '{"sex":"F"}', "imported": 10},
        {"user": "newer", "attributes": '{"sex":"F"}', "imported": 30},
        {"user": "written", "attributes": '{"sex":"F"}', "written": 25, "imported": 5},
        {"user": "imported", "attributes": '{"sex":"F"}', "imported": 7},
    ]
    put(lake / "users" / "users.parquet", columns.USERS, imported)
    put_log(
        lake,
        *(Profile(user=user, time=20, attributes={"sex": "M", "vip": True}) for user in ("older", "newer", "written")),
        Profile(user="put", time=20, attributes={"age": 31}),
        Profile(user="put", time=21, attributes={}),
    )
    out, _ = build(spark, lake)
    users = read(out, "users", "user")
    assert {name: (row["profile"], row["profile_time"]) for name, row in users.items() if name != "u"} == {
        "older": (["sex=m", "vip=true"], 20),
        "newer": (["sex=f"], 30),
        "written": (["sex=f"], 25),
        "imported": (["sex=f"], 7),
        "put": ([], 21),
    }


def test_nothing_known_of_a_user_before_their_erasure_is_trained_on(spark: SparkSession, lake: Path) -> None:
    before, other, after = decision("ada", 100, ["a", "b"]), decision("bob", 100, ["a"]), decision("ada", 300, ["b"])
    ada, bob = before.user, other.user
    put_ratings(lake, (ada, "old", 5, 90), (ada, "a", 5, 200), (ada, "b", 5, 201), (bob, "a", 5, 90), (bob, "b", 5, 91))
    late = {"user": ada, "item": "late", "type": "rating", "value": 5.0, "time": 150, "written": 250}
    put(lake / "interactions" / "late.parquet", columns.INTERACTIONS, [late])
    described = [{"user": user, "attributes": '{"sex":"F"}', "imported": 9_000} for user in (ada, bob)]
    put(lake / "users" / "users.parquet", columns.USERS, described)
    put_log(
        lake, before, feedback(before, "a", received=110), other, feedback(other, "a", received=111),
        Profile(user=ada, time=120, attributes={"age": 31}), Erasure(user=ada, time=200),
        after, feedback(after, "b", received=310),
    )  # fmt: skip
    out, _ = build(spark, lake)
    users = read(out, "users", "user")
    assert (users[ada]["items"], users[ada]["times"]) == (["b", "late", "b"], [201, 250, 310])
    assert (users[ada]["profile"], users[bob]["profile"]) == ([], ["sex=f"])
    assert users[bob]["items"] == ["a", "b", "a"]
    assert set(read(out, "impressions", "decision")) == {other.id, after.id}
    assert "old" not in read(out, "items", "item")


def test_what_a_visitor_did_until_they_were_merged_is_the_users(spark: SparkSession, lake: Path) -> None:
    """The visit is anonymous until 200, and then again until bob logs in at the same machine at 400."""
    slate, own, again = decision("visit", 100, ["a", "b"]), decision("ada", 90, ["b"]), decision("visit", 300, ["b"])
    visit, ada, bob = slate.user, own.user, KEYRING.user_key("bob")
    put_ratings(lake, (visit, "old", 5, 50), (ada, "b", 5, 60), (visit, "new", 5, 500), (visit, "newer", 5, 501))
    put_log(
        lake, own, slate, Profile(user=visit, time=110, attributes={"age": 31}), feedback(slate, "a", received=120),
        interaction("visit", "c", event="1", received=130), Merge(user=visit, account=ada, time=200),
        feedback(slate, "b", event="late", received=210), again, feedback(again, "b", received=310),
        Merge(user=visit, account=bob, time=400),
    )  # fmt: skip
    out, _ = build(spark, lake)
    users = read(out, "users", "user")
    assert (users[ada]["items"], users[ada]["times"]) == (["old", "b", "a", "c", "b"], [50, 60, 120, 130, 210])
    assert (users[bob]["items"], users[visit]["items"]) == (["b"], ["new", "newer"])
    assert users[visit]["profile"] == []
    impressions = read(out, "impressions", "decision")
    assert {name: row["user"] for name, row in impressions.items()} == {own.id: ada, slate.id: ada, again.id: bob}

    put_log(lake, Merge(user=ada, account=bob, time=600), Erasure(user=bob, time=700), start=10)
    out, _ = build(spark, lake)
    assert read(out, "users", "user").keys() == {
        visit
    }  # the others are forgotten with the one who they turned out to be


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
