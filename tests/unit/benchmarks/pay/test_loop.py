"""Arms are paired: they meet the same, and never each other."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.pay.arms import ARMS, COIN, DEFAULT, FROZEN, GREEDY, ORACLE, POPULARITY
from benchmarks.pay.loop import run
from benchmarks.pay.release import Prepared
from benchmarks.pay.world import opinions
from feature_store.shown import named
from tests.unit.benchmarks.pay.conftest import VISITORS


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_arm_played_again_shows_and_earns_the_same(prepared: Prepared, arm) -> None:  # type: ignore[no-untyped-def]
    first, again = run(prepared, arm, 7), run(prepared, arm, 7)
    assert (first.shown == again.shown).all()
    assert (first.liked == again.liked).all()


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_nothing_comes_twice_nor_before_it_entered_nor_to_who_knows_it(prepared: Prepared, arm) -> None:  # type: ignore[no-untyped-def]
    world = prepared.world
    found = run(prepared, arm, 1)
    enters = np.array([0] * len(world.past.items) + [new.turn for new in world.newcomers])
    number = {item.id: k for k, item in enumerate(world.items)}
    for visitor, user in enumerate(prepared.users):
        own = found.shown[found.visitor == visitor].ravel()
        assert len(set(own.tolist())) == len(own) == world.turns * world.slate
        assert not {number[item] for item in named(user.shown)} & set(own.tolist())
    turn = np.arange(len(found.shown)) // len(world.visitors)
    assert (enters[found.shown] <= turn[:, None]).all()


def test_arms_meet_the_same_opinions(prepared: Prepared) -> None:
    liked = opinions(prepared.world, 3)[0]
    first = run(prepared, FROZEN, 3)
    for arm in (FROZEN, GREEDY, DEFAULT):
        found = run(prepared, arm, 3)
        assert (found.visitor == first.visitor).all()
        assert (found.liked == liked[found.visitor[:, None], found.shown]).all()
    assert (liked != opinions(prepared.world, 4)[0]).any()


def test_the_frozen_order_is_that_of_the_predictions(prepared: Prepared) -> None:
    found = run(prepared, FROZEN, 0)
    shown = found.shown[:VISITORS][np.argsort(found.visitor[:VISITORS])]
    scores = prepared.predicted[np.arange(VISITORS)[:, None], shown]
    assert (np.diff(scores, axis=1) <= 0).all()
    allowed = prepared.predicted[:, : len(prepared.world.past.items)].copy()
    for row, user in enumerate(prepared.users):
        allowed[row, prepared.snapshots[0].positions(user.shown)] = -1
    assert (np.sort(allowed, axis=1)[:, ::-1][:, :3] == scores).all()


def test_greedy_learning_without_feedback_is_the_frozen_order(prepared: Prepared) -> None:
    """But for the benefit of the doubt that new items have."""
    never = replace(prepared, world=replace(prepared.world, delay=10_000))
    plain = GREEDY._replace(bandit=GREEDY.bandit.model_copy(update={"new_item_quantile": 0.5}))
    assert (run(never, plain, 0).shown == run(never, FROZEN, 0).shown).all()
    assert (run(never, GREEDY, 0).shown != run(never, FROZEN, 0).shown).any()


def test_learning_changes_what_is_shown(prepared: Prepared) -> None:
    assert (run(prepared, GREEDY, 0).shown != run(prepared, FROZEN, 0).shown).any()
    assert (run(prepared, DEFAULT, 0).shown != run(prepared, GREEDY, 0).shown).any()


def test_the_coin_leaves_the_frozen_order_and_learns_nothing(prepared: Prepared) -> None:
    assert (run(prepared, COIN, 0).shown != run(prepared, FROZEN, 0).shown).any()
    never = COIN._replace(bandit=COIN.bandit.model_copy(update={"explore_share": 0.0}))
    assert (run(prepared, never, 0).shown == run(prepared, FROZEN, 0).shown).all()


def test_feedback_comes_after_the_delay(prepared: Prepared) -> None:
    late = replace(prepared, world=replace(prepared.world, delay=VISITORS))
    assert (run(late, GREEDY, 0).shown[:VISITORS] == run(prepared, FROZEN, 0).shown[:VISITORS]).all()
    assert (run(late, GREEDY, 0).shown != run(prepared, FROZEN, 0).shown).any()


def test_what_is_not_looked_at_is_not_liked(prepared: Prepared) -> None:
    blinkered = replace(prepared, world=replace(prepared.world, seen=(1.0, 0.0, 0.0)))
    found = run(blinkered, GREEDY, 0)
    assert found.liked[:, 0].any()
    assert not found.liked[:, 1:].any()


def test_the_oracle_scores_by_what_items_earn_beyond_their_predictions(prepared: Prepared) -> None:
    assert ORACLE.order is not None
    rescored = ORACLE.order(prepared, 0)(np.array([0.1, 0.2]), np.array([0, 1]))
    earned = prepared.world.likes[0].sum(axis=0) / prepared.predicted.sum(axis=0)
    assert rescored == pytest.approx(np.array([0.1 * earned[0], 0.2 * earned[1]]) / earned.max())


def test_popularity_shows_the_most_popular_first(prepared: Prepared) -> None:
    lately = prepared.snapshots[-1].item_features.copy()
    lately[:, 1] = np.arange(len(lately))
    newest = replace(prepared.snapshots[-1], item_features=lately)
    changed = replace(prepared, snapshots=(*prepared.snapshots[:-1], newest))
    found = run(changed, POPULARITY, 0)
    first = int(np.flatnonzero(found.visitor == VISITORS - 1)[0])
    assert found.shown[first].tolist() == [39, 38, 37]


def test_likes_join_the_history(prepared: Prepared) -> None:
    nothing, everything = (np.full_like(prepared.world.likes, share) for share in (0.0, 1.0))
    ignored = run(replace(prepared, world=replace(prepared.world, likes=nothing)), FROZEN, 0)
    liked = run(replace(prepared, world=replace(prepared.world, likes=everything)), FROZEN, 0)
    first, later = slice(0, VISITORS), slice(VISITORS, None)
    assert (ignored.shown[first] == liked.shown[first]).all(), "with what was known before, the models see the same"
    assert (ignored.shown[later] != liked.shown[later]).any()


def test_visits_come_in_the_order_of_their_times(prepared: Prepared) -> None:
    times = np.arange(VISITORS * 4, dtype=np.float64).reshape(VISITORS, 4)  # all visits of one visitor, then the next
    found = run(replace(prepared, world=replace(prepared.world, times=times)), GREEDY, 0)
    assert found.visitor.tolist() == np.repeat(np.arange(VISITORS), 4).tolist()
