"""The fold: every documented outcome, by hand; and the laws of sums."""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.contracts.events import (
    MAX_VALUE,
    Decision,
    Erasure,
    Event,
    Feedback,
    Merge,
    Profile,
    Switch,
    Tick,
    Withdrawal,
)
from feature_store.definitions import HistoryEvent
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS, Sums
from feature_store.translation import Translation
from streaming.fold import Fold
from streaming.open_decisions import translate
from streaming.settings import Aggregation, RewardSettings
from tests.events import KEYRING, decision, feedback, interaction, unlogged
from tests.rows import by_name

REWARDS = RewardSettings(window_seconds=60)
NAMESPACE = Namespace(
    id="r-1", release="r", log="log", offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
)

FADING = msgspec.structs.replace(NAMESPACE, memory_days=1e-5, created=2_000)  # 864 ms


def _fold(*events: Event, settings: RewardSettings = REWARDS, namespace: Namespace = NAMESPACE) -> Fold:
    fold = Fold(namespace, settings, Start())
    fold.apply(events)
    return fold


def test_a_served_trial_counts_at_once_and_only_as_served() -> None:
    fold = _fold(decision("ada", 0, ["a"], clusters=[1, 3], weights=[0.25, 0.75], edges=[0b10]))
    assert fold.sums.get("a").tolist() == [1, 0, 0, 0, 0]
    assert fold.sums.get("a", 3).tolist() == [0.5625, 0, 0, 0, 0]
    assert list(by_name(fold.sums.rows())) == [":a", "3:a"]  # no such edge: bit 0 is not set


def test_feedback_resolves_its_trial() -> None:
    d = decision("ada", 0, ["a", "b"], clusters=[1], weights=[0.5], predicted=[0.2, 0.4])
    fold = _fold(d, feedback(d, "b"))
    # One of the two was wanted and .6 predicted: a rate of 1.1 / (2 + .1 / .3) = 33/70 in place of 3/10, 77/37 on odds.
    expected = 154 / 265  # of odds 2/3 * 77/37
    assert fold.sums.get("b") == pytest.approx([1, 1, 1, 1, expected])
    assert fold.sums.get("b", 1) == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.5 * expected])
    assert fold.sums.get("a").tolist() == [1, 0, 0, 0, 0]
    assert fold.outcomes == {"decision": 1, "learnt": 1}


def test_a_slate_is_held_against_predictions_as_steep_as_the_release_is() -> None:
    steep = msgspec.structs.replace(NAMESPACE, steepness=2.0)
    # Odds 1/4 and 1, of mean 1/2: twice as far from there is 1/8 and 2.
    flat = decision("ada", 0, ["a", "b"], predicted=[1 / 5, 1 / 2])
    wanted = decision("ada", 0, ["a", "b"], predicted=[1 / 9, 2 / 3])
    found = [
        by_name(_fold(d, feedback(d, "b"), Tick(time=60_000), namespace=n).sums.rows())
        for d, n in ((flat, steep), (wanted, NAMESPACE))
    ]
    for name in (":a", ":b"):
        assert found[0][name] == pytest.approx(found[1][name])


def test_a_view_that_never_came_leaves_an_item_out_of_what_was_expected_of_its_slate() -> None:
    shown = decision("ada", 0, ["a", "b", "c"], predicted=[0.2, 0.4, 0.9])
    told = [feedback(shown, "a", "view", event="1"), feedback(shown, "b", event="2")]
    fold = _fold(shown, *told, Tick(time=60_000))
    alone = decision("ada", 0, ["a", "b"], predicted=[0.2, 0.4])
    told = [feedback(alone, "a", "view", event="1"), feedback(alone, "b", event="2")]
    wanted = _fold(alone, *told, Tick(time=60_000))
    for item in "ab":
        assert fold.sums.get(item) == pytest.approx(wanted.sums.get(item))
    assert fold.sums.get("c").tolist() == [0, 0, 0, 0, 0]


def test_a_correction_replaces_the_reward() -> None:
    d = decision("ada", 0, ["a"])
    fold = _fold(d, feedback(d, "a", "view", event="1"), feedback(d, "a", "click", event="2"))
    assert fold.sums.get("a").tolist() == [1, 1, 1, 1, 0.5]
    assert fold.outcomes["corrected"] == 1


@pytest.mark.parametrize(
    ("aggregation", "expected"), [(Aggregation.SUM, 1.0), (Aggregation.MAX, 0.75), (Aggregation.LATEST, 0.25)]
)
def test_aggregations(aggregation: Aggregation, expected: float) -> None:
    d = decision("ada", 0, ["a"])
    events = [feedback(d, "a", "watch", event=str(v), value=v) for v in (0.75, 0.25)]
    fold = _fold(d, *events, settings=RewardSettings(aggregation=aggregation))
    assert fold.sums.get("a").tolist() == [1, 1, expected, expected**2, 0.5]


def test_the_largest_of_negative_rewards_is_negative() -> None:
    settings = RewardSettings(weights={"bad": -1.0, "worse": -2.0}, minimum=-5, silence=-5)
    d = decision("ada", 0, ["a"])
    fold = _fold(d, feedback(d, "a", "worse", event="1"), feedback(d, "a", "bad", event="2"), settings=settings)
    assert fold.sums.get("a").tolist() == [1, 1, -1, 1, 0.5]


VIEW_ALONE = {"view": 0.25, "click": 0.75, "bad": -1.0}


@pytest.mark.parametrize("aggregation", list(Aggregation))
@pytest.mark.parametrize(("order"), [("view", "bad"), ("bad", "view"), ("view",), ("view", "bad", "view")])
def test_a_view_counts_only_while_nothing_else_has_come(order: Sequence[str], aggregation: Aggregation) -> None:
    settings = RewardSettings(weights=VIEW_ALONE, aggregation=aggregation, minimum=-1)
    d = decision("ada", 0, ["a"])
    fold = _fold(d, *(feedback(d, "a", kind, event=str(n)) for n, kind in enumerate(order)), settings=settings)
    expected = -1.0 if "bad" in order else 0.25
    assert fold.sums.get("a").tolist() == [1, 1, expected, expected**2, 0.5]


@pytest.mark.parametrize(("seconds", "expected"), [(29.9, 0.0), (30.0, 0.75), (1e12, 0.75), (-1.0, 0.0)])
def test_a_type_with_a_threshold_counts_whole_or_not_at_all(seconds: float, expected: float) -> None:
    settings = RewardSettings(weights={"watch": 0.75}, thresholds={"watch": 30.0})
    d = decision("ada", 0, ["a"])
    fold = _fold(d, feedback(d, "a", "watch", value=seconds), settings=settings)
    assert fold.sums.get("a").tolist() == [1, 1, expected, expected**2, 0.5]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"thresholds": {"poem": 1.0}}, "rewards.thresholds names ['poem'], which rewards.weights does not declare"),
        ({"weights": {"click": math.inf}}, "weights.click"),
        ({"minimum": math.nan}, "minimum"),
        ({"silence": -1.0}, "rewards.silence -1.0 lies outside [0.0, 1.0]"),
    ],
)
def test_rewards_that_make_no_sense_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        RewardSettings(**given)


@given(st.lists(st.floats(-MAX_VALUE, MAX_VALUE), min_size=1, max_size=5), st.sampled_from(Aggregation))
def test_no_value_within_bounds_makes_a_sum_that_is_not_a_number(values: list[float], aggregation: Aggregation) -> None:
    settings = RewardSettings(weights={"big": 1e6, "view": -1e6}, aggregation=aggregation, minimum=-1e6, maximum=1e6)
    d = decision("ada", 0, ["a"])
    kinds = ("big", "view")
    told = [feedback(d, "a", kinds[n % 2], event=str(n), value=value) for n, value in enumerate(values)]
    fold = _fold(d, *told, settings=settings)
    assert np.isfinite(fold.sums.rows().values).all()
    assert fold.outcomes["dead"] == 0


def test_a_decision_whose_window_has_closed_does_not_count_again() -> None:
    d = decision("ada", 0, ["a"])
    fold = _fold(d, Tick(time=60_000), d, Tick(time=130_000))
    assert fold.sums.get("a").tolist() == [1, 1, 0, 0, 0.5]
    assert fold.outcomes["late"] == 1


def test_the_same_event_twice_counts_once() -> None:
    d = decision("ada", 0, ["a"])
    once = _fold(d, feedback(d, "a"))
    twice = _fold(d, feedback(d, "a"), feedback(d, "a"), d)
    assert by_name(twice.sums.rows()) == by_name(once.sums.rows())
    assert twice.outcomes == {"decision": 1, "learnt": 1, "duplicate": 2}


def test_silence_resolves_when_the_window_closes_in_stream_time() -> None:
    d = decision("ada", 0, ["a", "b"])
    fold = _fold(d, feedback(d, "a"), Tick(time=59_999))
    assert fold.sums.get("b").tolist() == [1, 0, 0, 0, 0]
    fold.apply([Tick(time=60_000)])
    assert fold.sums.get("b").tolist() == [1, 1, 0, 0, 0.5]
    assert fold.outcomes["silent"] == 1
    assert fold.open_decisions == 0


def test_what_closes_while_learning_is_off_is_no_longer_on_its_way() -> None:
    d = decision("ada", 0, ["a", "b"])
    fold = _fold(d, feedback(d, "a"), Switch(learning=False, time=5_000), Tick(time=60_000))
    assert fold.sums.get("a").tolist() == [1, 1, 1, 1, 0.5]
    assert fold.sums.get("b").tolist() == [0, 0, 0, 0, 0]


def test_a_client_that_reports_views_makes_only_viewed_items_trials() -> None:
    d = decision("ada", 0, ["a", "b"])
    fold = _fold(d, feedback(d, "a", "view"), Tick(time=60_000))
    assert fold.sums.get("a").tolist() == [1, 1, 0, 0, 0.5]
    assert fold.sums.get("b").tolist() == [0, 0, 0, 0, 0]  # nothing of it is on its way any more


def test_feedback_after_the_window_is_late_and_changes_nothing() -> None:
    d = decision("ada", 0, ["a"])
    fold = _fold(d, Tick(time=60_000), feedback(d, "a", received=60_001))
    assert fold.sums.get("a").tolist() == [1, 1, 0, 0, 0.5]
    assert fold.outcomes["late"] == 1
    assert fold.take_dead() == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"item": "z"}, "its item was not in the decision's slate"),
        ({"type": "poem"}, "event type 'poem' is not declared"),
        ({"value": math.nan}, "its value nan is not a number between -1e+12 and 1e+12"),
        ({"value": -math.inf}, "its value -inf is not a number"),
        ({"value": 1.1e12}, "its value 1100000000000.0 is not a number"),
        ({"user": "somebody"}, "it comes from another user than its decision's"),
        ({"decision": "made up"}, "its decision id is not one"),
    ],
)
def test_what_cannot_be_processed_is_a_dead_letter(change: dict[str, str | float], reason: str) -> None:
    d = decision("ada", 0, ["a"])
    broken: Feedback = msgspec.structs.replace(feedback(d, "a"), **change)
    fold = _fold(d, broken)
    (letter,) = fold.take_dead()
    assert letter.event == broken
    assert reason in letter.reason
    assert fold.take_dead() == []
    assert fold.sums.get("a").tolist() == [1, 0, 0, 0, 0]


def test_feedback_on_a_decision_that_is_not_in_the_log_is_a_dead_letter() -> None:
    fold = _fold(feedback(decision("ada", 0, ["a"]), "a"))
    assert [letter.reason for letter in fold.take_dead()] == ["its decision is not in the log before it"]


def test_variants_without_the_bandit_teach_nothing_but_histories_grow() -> None:
    d = decision("ada", 0, ["a", "b"], learns=False)
    fold = _fold(d, feedback(d, "a"), feedback(d, "b", "view", event="v"), Tick(time=60_000))
    changes = fold.take()
    assert len(fold.sums) == 0
    assert changes.history == [(d.user, HistoryEvent("a", "click+", 1000))]
    assert fold.outcomes["seen"] == 2


def test_all_feedback_that_counts_is_history_except_views() -> None:
    d = decision("ada", 0, ["a", "b"])
    fold = _fold(
        d,
        feedback(d, "a", "view", event="1"),
        feedback(d, "a", event="2", value=0.4),  # below rewards.positive
        feedback(d, "b", event="3"),
        feedback(d, "b", event="3"),  # a duplicate
        feedback(d, "b", "dislike", event="4"),  # the maximum stays at 1, but this event is no sign of liking it
        feedback(d, "c", event="5"),  # not shown
        Tick(time=60_000),
        feedback(d, "a", event="6"),  # late
    )
    assert [event[1:] for event in fold.take().history] == [
        (HistoryEvent("a", "click-", 1000),),
        (HistoryEvent("b", "click+", 1000),),
        (HistoryEvent("b", "dislike-", 1000),),
    ]


@pytest.mark.parametrize(
    ("aggregation", "kinds"),
    [
        (Aggregation.MAX, ["watch-", "watch-", "watch+", "dislike-"]),
        (Aggregation.LATEST, ["watch-", "watch-", "watch+", "dislike-"]),
        (Aggregation.SUM, ["watch-", "watch+", "watch+", "dislike-"]),  # 0.3 + 0.3 is enough; a dislike adds nothing
    ],
)
def test_an_event_is_positive_by_itself_or_where_events_add_up_with_those_before(
    aggregation: Aggregation, kinds: list[str]
) -> None:
    d = decision("ada", 0, ["a"])
    told = [feedback(d, "a", "watch", event=str(n), value=value) for n, value in enumerate([0.3, 0.3, 0.5])]
    settings = RewardSettings(aggregation=aggregation, window_seconds=60)
    fold = _fold(d, *told, feedback(d, "a", "dislike", event="d"), settings=settings)
    assert [event.kind for _, event in fold.take().history] == kinds


def test_the_switch_stops_learning_from_its_place_in_the_log() -> None:
    before, during = decision("ada", 0, ["a"]), decision("ada", 10, ["b"], nonce=b"87654321")
    fold = _fold(
        before, Switch(learning=False, time=5), feedback(before, "a"), during, feedback(during, "b"),
        Switch(learning=True, time=2000), feedback(during, "b", event="later"), Tick(time=70_000),
    )  # fmt: skip
    assert list(by_name(fold.sums.rows())) == [":a", "0:a"]
    assert fold.sums.get("a").tolist() == [1, 1, 0, 0, 0.5]  # its click fell into the pause; silence came after it


def test_a_decision_of_another_release_is_folded_through_the_translation() -> None:
    graph = Graph.build(["a"], np.array([0, 0]), np.array([1, 2]), clusters=4)
    namespace = Namespace(
        id="s-1", release="s", log="log", offsets=[0], created=0, graph=graph, base=NO_ROWS, starts=[Start()],
        translations={"r": Translation.of(np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]]))},
    )  # fmt: skip
    d = decision("ada", 0, ["a", "new"], clusters=[0, 1], weights=[0.5, 0.5])
    fold = _fold(d, feedback(d, "a"), namespace=namespace)
    # w' = 1/2 (1/2, 1/4, 1/4, 0) + 1/2 (0, 1, 0, 0) = (1/4, 5/8, 1/8, 0); item a has edges to clusters 1 and 2
    assert fold.sums.get("a", 1).tolist() == [25 / 64, 25 / 64, 5 / 8, 5 / 8, 5 / 16]
    assert fold.sums.get("a", 2).tolist() == [1 / 64, 1 / 64, 1 / 8, 1 / 8, 1 / 16]
    assert fold.sums.get("new").tolist() == [1, 0, 0, 0, 0]
    assert sorted(by_name(fold.sums.rows())) == ["1:a", "2:a", ":a", ":new"]


def test_a_decision_of_an_unknown_release_teaches_items_only() -> None:
    d = decision("ada", 0, ["a"], release="forgotten")
    assert by_name(_fold(d, feedback(d, "a")).sums.rows()).keys() == {":a"}


def test_a_withdrawn_decision_was_never_served() -> None:
    d = decision("ada", 0, ["a", "b"], clusters=[1], weights=[0.5])
    fold = _fold(d, Withdrawal(decision=d.id, user=d.user, time=5), Tick(time=70_000), feedback(d, "a", received=5))
    assert not fold.sums.rows().values.any()
    assert fold.open_decisions == 0
    assert fold.take().closed == [d.id]


def test_an_erasure_closes_what_is_open_of_its_user_and_keeps_what_was_learnt() -> None:
    erased, other = decision("ada", 0, ["a", "b"], clusters=[1], weights=[0.5]), decision("bob", 0, ["a"])
    before = _fold(erased, other, feedback(erased, "a"))
    fold = _fold(erased, other, feedback(erased, "a"), Erasure(user=erased.user, time=2_000))
    assert fold.open_decisions == 1
    assert fold.sums.get("a").tolist() == before.sums.get("a").tolist()
    assert not fold.sums.get("b").any()
    assert not fold.sums.get("b", 1).any()
    changes = fold.take()
    assert (changes.closed, changes.departures) == ([erased.id], [Erasure(user=erased.user, time=2_000)])
    assert changes.opened.keys() == {other.id}
    fold.apply([feedback(erased, "a", "like", event="more", received=3_000), Tick(time=70_000)])
    assert fold.sums.get("a").tolist() == [2, 2, 1, 1, 1]  # bob's in silence
    back = decision("ada", 71_000, ["b"])
    fold.apply([back, feedback(back, "b")])
    assert fold.sums.get("b").tolist() == [1, 1, 1, 1, 0.5]  # whoever comes back is somebody new
    assert not _fold(erased, Erasure(user=erased.user, time=1)).sums.rows().values.any()


def test_after_a_merge_trials_go_on_and_what_comes_of_the_visitors_slates_is_the_users() -> None:
    slate, bought = (
        decision("visit", 0, ["a", "b"], clusters=[1], weights=[0.5]),
        interaction("visit", "x", received=900),
    )
    merge = Merge(user=slate.user, account=KEYRING.user_key("ada"), time=1_000)
    later = [feedback(slate, "a", received=2_000), interaction("visit", "y", event="2", received=2_100)]
    fold, plain = _fold(slate, bought, merge, *later), _fold(slate, bought, *later)
    assert by_name(fold.sums.rows()) == by_name(plain.sums.rows())
    assert fold.outcomes == {"decision": 1, "interaction": 2, "merged": 1, "learnt": 1}
    changes = fold.take()
    assert changes.departures == [merge]
    assert [(user, event.item) for user, event in changes.history] == [
        (slate.user, "x"), (merge.account, "a"), (slate.user, "y")
    ]  # fmt: skip
    restored = Fold(NAMESPACE, REWARDS, Start(2_100, True, changes.opened), fold.sums.rows())
    restored.apply([feedback(slate, "b", event="3", received=3_000)])
    assert [user for user, _ in restored.take().history] == [merge.account]


def test_what_is_closed_and_opened_again_between_two_commits_is_stored() -> None:
    answer = unlogged("ada", 1_000)
    told = feedback(answer, "a")
    fold = _fold(told, Erasure(user=answer.user, time=2_500), feedback(answer, "b", event="again", received=3_000))
    changes = fold.take()
    assert list(changes.opened) == [answer.id]
    assert changes.closed == []
    assert fold.open_decisions == 1


def test_profiles_reach_the_online_store_as_tokens() -> None:
    fold = _fold(
        Profile(user="u", time=5, attributes={"age": 31, "vip": True}), Profile(user="v", time=6, attributes={})
    )
    assert fold.take().profiles == [("u", ["age=5.1", "vip=true"], 5), ("v", [], 6)]
    fold.apply([Profile(user="u", time=7, attributes={"age": math.inf})])
    assert fold.take().profiles == []
    assert [dead.reason for dead in fold.take_dead()] == [
        "Attribute value inf is not a finite number. Leave the attribute out instead."
    ]


def test_a_fold_of_the_next_namespace_knows_the_decisions_that_were_open() -> None:
    graph = Graph.build(["a"], np.array([0]), np.array([2]), clusters=4)
    after = Namespace(
        id="s-1", release="s", log="log", offsets=[1], created=0, graph=graph, base=NO_ROWS, starts=[Start()]
    )
    d = decision("ada", 0, ["a"], clusters=[1], weights=[1.0], predicted=[0.25])
    before = _fold(d)
    matrix = Translation.of(np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]]))
    fold = Fold(after, REWARDS, translate(before.start(), matrix, graph))
    assert fold.take().opened.keys() == {d.id}  # to be stored with the first commit
    fold.apply([feedback(d, "a")])
    assert fold.sums.get("a").tolist() == [0, 1, 1, 1, 0.25]  # served is in the base already
    assert fold.sums.get("a", 2).tolist() == [0, 0.25, 0.5, 0.5, 0.125]
    assert by_name(fold.sums.rows()).keys() == {":a", "2:a"}


DAY = 86_400_000


def _fading(log_time: int) -> tuple[Namespace, Start]:
    return msgspec.structs.replace(NAMESPACE, memory_days=1.0), Start(stream_time=log_time)


def test_a_trial_counts_by_the_time_of_its_decision() -> None:
    """A day after the landmark it counts e times, whenever its feedback comes."""
    namespace, start = _fading(DAY)
    d = decision("ada", DAY, ["a", "b"], clusters=[1], weights=[0.5], predicted=[0.25, 0.5])
    fold = Fold(namespace, REWARDS, start)
    fold.apply([d, feedback(d, "a", received=DAY + 50_000), Tick(time=DAY + 60_000)])
    assert fold.sums.get("a") == pytest.approx(math.e * np.array([1, 1, 1, 1, 11 / 32]), rel=1e-12)
    assert fold.sums.get("a", 1) == pytest.approx(math.e * np.array([0.25, 0.25, 0.5, 0.5, 11 / 64]), rel=1e-12)
    assert fold.sums.get("b") == pytest.approx(math.e * np.array([1, 1, 0, 0, 11 / 18]), rel=1e-12)  # silence


def test_what_is_corrected_or_taken_back_is_what_was_added() -> None:
    namespace, start = _fading(5 * DAY)
    corrected, shown, withdrawn = (decision(user, 5 * DAY + 7, ["a"]) for user in ("ada", "bob", "eve"))
    taken_back = Withdrawal(decision=withdrawn.id, user=withdrawn.user, time=5 * DAY + 30_000)
    events: list[Event] = [
        corrected, withdrawn, shown, feedback(corrected, "a", "click", event="1"), feedback(shown, "a", "view"),
        feedback(corrected, "a", "dislike", event="2", received=5 * DAY + 30_000),
        taken_back,
    ]  # fmt: skip
    fold = Fold(namespace, RewardSettings(window_seconds=60, aggregation=Aggregation.LATEST), start)
    fold.apply(events)
    assert fold.outcomes["corrected"] == fold.outcomes["withdrawn"] == 1
    trial = math.exp(5 + 7 / DAY)
    assert fold.sums.get("a") == pytest.approx(trial * np.array([2, 2, 0, 0, 1]), abs=1e-12)
    alone = Fold(namespace, REWARDS, start)
    alone.apply([withdrawn, taken_back])
    assert not alone.sums.get("a").any()


# Laws

NAMESPACES = st.sampled_from([NAMESPACE, FADING])
ACTION = st.sampled_from(["elsewhere", "click", "view", "erase", "come back", "merge"])
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), ACTION, st.integers(0, 9)), max_size=30)


def _log(steps: Sequence[tuple[int, int, str, int]]) -> list[Event]:
    def decided(u: int, visit: int) -> Decision:
        items, predicted, nonce = ["a", "b", "c"], [0.1, 0.2, 0.3], visit.to_bytes(8, "big")
        time = u * 1000 + visit
        return decision(f"user {u}", time, items, clusters=[0, 2], weights=[0.3, 0.7], predicted=predicted, nonce=nonce)

    decisions = [decided(u, 0) for u in range(4)]
    events: list[Event] = list(decisions)
    for place, (u, i, action, e) in enumerate(steps, 1):
        if action == "erase":
            events.append(Erasure(user=decisions[u].user, time=decisions[u].time))
        elif action == "merge":
            events.append(Merge(user=decisions[u].user, account=decisions[i].user, time=decisions[u].time))
        elif action == "come back":
            decisions[u] = decided(u, place)
            events.append(decisions[u])
        elif action == "elsewhere":
            events.append(interaction(f"user {u}", "abc"[i], event=str(e), received=decisions[u].time))
        else:
            events.append(feedback(decisions[u], "abc"[i], action, event=str(e)))
    return events


@given(STEPS, st.integers(1, 7), NAMESPACES)
def test_stopping_and_going_on_from_the_stored_state_changes_nothing(
    steps: list[tuple[int, int, str, int]], batch: int, namespace: Namespace
) -> None:
    events = [*_log(steps), Tick(time=65_000)]
    whole = _fold(*events, namespace=namespace)
    stored, opened, stream_time = Sums(), dict[str, bytes](), 0
    for start in range(0, len(events), batch):
        fold = Fold(namespace, REWARDS, Start(stream_time, True, opened), stored.rows())
        fold.apply(events[start : start + batch])
        changes = fold.take()
        stored.merge(changes.rows)  # as a store does: only what commits carried
        opened = {k: v for k, v in (opened | changes.opened).items() if k not in changes.closed}
        stream_time = fold.stream_time
    assert_equal(stored, whole.sums)
    assert opened == {}


def assert_equal(one: Sums, other: Sums) -> None:
    keys = Sums.of(one.rows(), other.rows()).rows()
    assert one.select(keys) == pytest.approx(other.select(keys), abs=1e-12)


@given(STEPS, NAMESPACES)
def test_the_order_of_events_of_different_users_does_not_matter(
    steps: list[tuple[int, int, str, int]], namespace: Namespace
) -> None:
    events = _log(steps)
    by_user = sorted(events, key=lambda event: getattr(event, "user", ""))
    assert_equal(_fold(*events, namespace=namespace).sums, _fold(*by_user, namespace=namespace).sums)


@given(STEPS, st.integers(1, 4), NAMESPACES)
def test_the_number_of_partitions_does_not_matter(
    steps: list[tuple[int, int, str, int]], partitions: int, namespace: Namespace
) -> None:
    events = _log(steps)
    users = sorted({getattr(event, "user", "") for event in events})
    parts = [[e for e in events if users.index(getattr(e, "user", "")) % partitions == p] for p in range(partitions)]
    sums = [_fold(*part, namespace=namespace).sums.rows() for part in parts]
    assert_equal(_fold(*events, namespace=namespace).sums, Sums.of(*sums))


def test_feedback_on_an_answer_that_is_not_in_the_log_is_an_interaction_and_no_trial() -> None:
    answer = unlogged("ada", 1_000)
    events: list[Event] = [
        decision("ada", 0, ["a"]),
        feedback(answer, "a", event="1"),
        feedback(answer, "b", "dislike", event="2"),
        feedback(answer, "c", "view", event="3"),
        feedback(answer, "a", event="1"),  # sent again
    ]
    fold = _fold(*events)
    assert fold.outcomes == {"decision": 1, "unlogged": 3, "duplicate": 1}
    changes = fold.take()
    user = answer.user
    assert changes.history == [(user, HistoryEvent("a", "click+", 2_000)), (user, HistoryEvent("b", "dislike-", 2_000))]
    assert by_name(changes.rows).keys() == {":a", "0:a"}  # of the decision
    assert fold.take_dead() == []


def test_a_fold_that_goes_on_remembers_what_an_unlogged_answer_has_had() -> None:
    answer = unlogged("ada", 1_000)
    before = _fold(feedback(answer, "a", event="1"))
    after = Fold(NAMESPACE, REWARDS, before.start())
    after.apply([feedback(answer, "a", event="1"), feedback(answer, "b", event="2"), Tick(time=62_000)])
    assert after.outcomes == {"duplicate": 1, "unlogged": 1}
    assert after.open_decisions == 0
    assert not len(after.take().rows.item)


def test_an_erasure_closes_an_unlogged_answer_and_leaves_the_sums_alone() -> None:
    answer = unlogged("ada", 1_000)
    fold = _fold(feedback(answer, "a"), Erasure(user=answer.user, time=2_000))
    assert fold.open_decisions == 0
    assert not len(fold.take().rows.item)


def test_an_unlogged_answer_is_its_user_s_alone() -> None:
    answer = unlogged("ada", 1_000)
    fold = _fold(msgspec.structs.replace(feedback(answer, "a"), user=decision("bob", 0, []).user))
    assert fold.outcomes == {"dead": 1}
    assert fold.take().history == []


def test_events_that_belong_to_no_decision_are_history_and_no_trial() -> None:
    events: list[Event] = [
        decision("ada", 0, ["a"]),
        interaction("ada", "a", event="order", received=2_000),
        interaction("ada", "a", event="order", received=3_000),  # sent again
        interaction("bob", "a", event="order", received=3_000),
        interaction("ada", "a", "view", event="look", received=4_000),
        interaction("ada", "b", "dislike", event="no", received=5_000),
    ]
    fold = _fold(*events)
    assert fold.outcomes == {"decision": 1, "interaction": 4, "duplicate": 1}
    changes = fold.take()
    ada, bob = KEYRING.user_key("ada"), KEYRING.user_key("bob")
    assert changes.history == [
        (ada, HistoryEvent("a", "purchase+", 2_000)),
        (bob, HistoryEvent("a", "purchase+", 3_000)),
        (ada, HistoryEvent("b", "dislike-", 5_000)),
    ]
    assert by_name(changes.rows).keys() == {":a", "0:a"}  # of the decision
    assert fold.take_dead() == []


def test_what_is_pinned_is_history_and_no_trial() -> None:
    """... also when the fold goes on from what was stored, and to a client that reports views."""
    made = msgspec.structs.replace(decision("ada", 0, ["a", "b"]), pinned=["p"], pinned_places=[1])
    plain = decision("ada", 0, ["a", "b"])
    on_pin = [feedback(made, "p", event="1"), feedback(made, "p", "dislike", event="2", received=2_000)]
    fold = _fold(made, *on_pin, feedback(made, "b", event="3", received=3_000))
    assert fold.outcomes == {"decision": 1, "pinned": 2, "learnt": 1}
    without = _fold(plain, feedback(plain, "b", event="3", received=3_000))
    assert by_name(fold.sums.rows()) == by_name(without.sums.rows())
    changes = fold.take()
    assert [(event.item, event.kind) for _, event in changes.history] == [
        ("p", "click+"), ("p", "dislike-"), ("b", "click+"),
    ]  # fmt: skip
    later = Fold(NAMESPACE, REWARDS, fold.start())
    later.apply([on_pin[0], feedback(made, "p", event="4", received=4_000), feedback(made, "q", event="5")])
    assert later.outcomes == {"duplicate": 1, "pinned": 1, "dead": 1}
    viewed = _fold(made, feedback(made, "p", "view"), Tick(time=60_000))
    assert viewed.outcomes == {"decision": 1, "pinned": 1}, "nothing was seen of a and b"


def test_an_event_that_belongs_to_no_decision_is_remembered_for_a_window_and_never_late() -> None:
    early = interaction("ada", "a", received=1_000)
    before = _fold(Tick(time=100_000), early)  # another host's clock is ahead
    after = Fold(NAMESPACE, REWARDS, before.start())
    after.apply([early, Tick(time=160_000)])
    assert before.outcomes == {"interaction": 1}
    assert after.outcomes == {"duplicate": 1}
    assert after.open_decisions == 0


def test_an_event_sent_again_after_an_erasure_is_remembered_for_a_window_of_its_own() -> None:
    first, again, once_more = (interaction("ada", "a", received=at) for at in (0, 50_000, 100_000))
    fold = _fold(first, Erasure(user=first.user, time=1_000), again, Tick(time=61_000), once_more)
    assert fold.outcomes == {"interaction": 2, "erased": 1, "duplicate": 1}


@pytest.mark.parametrize("first", ["decision", "withdrawal"])
def test_a_withdrawn_decision_leaves_nothing_in_either_order(first: str) -> None:
    d = decision("ada", 0, ["a"])
    withdrawal = Withdrawal(decision=d.id, user=d.user, time=0)
    events: list[Event] = [d, withdrawal] if first == "decision" else [withdrawal, d]
    fold = _fold(*events, Tick(time=61_000))
    assert not np.any(fold.sums.get("a"))
    assert fold.outcomes["silent"] == 0
    assert fold.open_decisions == 0
