"""Decisions and their feedback in the training sets, against answers known by hand and against the fold."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from feature_store.contracts.events import Erasure, Event, Feedback, Tick, Withdrawal
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS
from streaming.fold import Fold
from streaming.settings import Aggregation, RewardSettings
from tests.events import KEYRING, decision, feedback, interaction, unlogged
from tests.lakes import put, put_log
from tests.training_sets import build, known_before, put_ratings, read


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


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


def test_feedback_is_joined_as_documented(spark: SparkSession, lake: Path) -> None:
    put_ratings(lake, ("u", "x", 5, 1), ("u", "y", 5, 2))
    d = decision("u", 1_000, ["a", "b", "c", "d", "e"], predicted=[0.1, 0.2, 0.3, 0.4, 0.5])
    quiet = decision("u", 2_000, ["a"], nonce=b"quiet678")
    viewed = decision("u", 3_000, ["a", "b", "c"], nonce=b"viewed78")
    unseen = decision("u", 4_000, ["a"], nonce=b"unseen78")
    pinning = msgspec.structs.replace(decision("w", 5_000, ["a"], nonce=b"pinned78"), pinned=["p"], pinned_places=[1])
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
        pinning,
        feedback(pinning, "p", event="1"),
    )
    out, summary = build(spark, lake)
    impressions = read(out, "impressions", "decision")
    assert impressions.keys() == {d.id, quiet.id, viewed.id, pinning.id}
    assert (impressions[pinning.id]["items"], impressions[pinning.id]["rewards"]) == (["a"], [0.0])
    assert read(out, "users", "user")[pinning.user]["items"] == ["p"]
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
    assert (summary.interactions, summary.positives) == (2 + 7 + 1, 2 + 4 + 1)
    assert read(out, "items", "item")["a"]["popularity"] == pytest.approx(math.log(2))


def test_feedback_on_an_answer_that_is_not_in_the_log_is_an_interaction_and_no_impression(
    spark: SparkSession, lake: Path
) -> None:
    """... and the lake gives the histories that the updater wrote."""
    put_ratings(lake, ("u", "x", 5, 1), ("u", "y", 5, 2))
    shown, answer, strange = decision("u", 1_000, ["a"]), unlogged("u", 2_000), unlogged("v", 3_000)
    events: list[Event] = [
        shown,
        feedback(answer, "b", event="1", received=2_500),
        feedback(answer, "b", event="1", received=2_600),  # sent again
        feedback(answer, "c", "dislike", event="2", received=2_700),
        feedback(answer, "c", "view", event="3", received=2_700),
        feedback(answer, "x" * 257, event="4", received=2_800),
        feedback(answer, "d", event="5", received=62_000),  # too late
        msgspec.structs.replace(feedback(strange, "e", event="1"), user=shown.user),  # not its user
        feedback(strange, "f", event="2", received=3_500),
    ]
    put_log(lake, *events)
    out, summary = build(spark, lake)
    assert read(out, "impressions", "decision").keys() == {shown.id}
    users = read(out, "users", "user")
    namespace = Namespace(id="", release="r", log="", offsets=[], created=0, graph=Graph(4), base=NO_ROWS, starts=[])
    fold = Fold(namespace, RewardSettings(window_seconds=60), Start())
    fold.apply(events)
    told = fold.take().history
    for user in (answer.user, strange.user):
        found = [*zip(users[user]["items"], users[user]["kinds"], users[user]["times"], strict=True)]
        assert [one for one in found if not one[1].startswith("rating")] == [
            (event.item, event.kind, event.time) for whose, event in told if whose == user
        ]
    assert (summary.interactions, summary.positives) == (2 + 3, 2 + 2)


def test_events_that_belong_to_no_decision_are_interactions_and_no_impressions(spark: SparkSession, lake: Path) -> None:
    """... once each, however late they are sent again, and none from before their user's erasure."""
    put_ratings(lake, ("u", "x", 5, 1), ("u", "y", 5, 2))
    shown = decision("u", 1_000, ["a"])
    put_log(
        lake,
        shown,
        interaction("u", "b", event="1", received=2_500),
        interaction("u", "b", event="1", received=99_000),  # sent again
        interaction("u", "c", "view", event="2", received=2_600),
        interaction("u", "x" * 257, event="3", received=2_600),
        interaction("u", "d", "undeclared", event="4", received=2_600),
        interaction("v", "e", event="1", received=3_000),
        Erasure(user=KEYRING.user_key("v"), time=4_000),
        interaction("v", "f", "dislike", event="2", received=5_000),
    )
    out, summary = build(spark, lake)
    assert read(out, "impressions", "decision").keys() == {shown.id}
    users = read(out, "users", "user")
    bought, disliked = users[shown.user], users[KEYRING.user_key("v")]
    assert (bought["items"], bought["kinds"], bought["times"]) == (["b"], ["purchase+"], [2_500])
    assert (disliked["items"], disliked["kinds"], disliked["times"]) == (["f"], ["dislike-"], [5_000])
    assert (summary.interactions, summary.positives) == (2 + 2, 2 + 1)


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
        value = float(rng.choice([0.5, 1.0]))
        order = interaction(
            f"user{n % 5}", "bought", "buy", event=str(n % 40), received=shown.time + 5_000, value=value
        )
        events.append(order)
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
