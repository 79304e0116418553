"""What a retrain in mid-flight reads, and what serves after it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ensemble.retraining import Retraining, as_known, impressions
from benchmarks.pay.arms import DEFAULT, FROZEN
from benchmarks.pay.loop import VISIT_MS, Change, Run, run
from benchmarks.pay.release import Prepared
from feature_store.arrays import Float64
from feature_store.sums import NO_ROWS, REWARD, Rows
from feature_store.translation import Translation
from offline_training.carry_over.ensemble import transport
from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from tests.unit.benchmarks.pay.conftest import ITEMS, NEW, VISITORS

SETTINGS = TrainingSettings(dimensions=8, heads=1, layers=1, history_length=4, epochs=1, list_length=0)


def shown_until(prepared: Prepared, visits: int) -> Run:
    found = run(prepared, DEFAULT, 3)
    return Run(found.visitor[:visits], found.shown[:visits], found.liked[:visits], 0.0)


def test_what_was_liked_is_known_afterwards_and_items_that_entered_belong_to_it(prepared: Prepared) -> None:
    world, before = prepared.world, shown_until(prepared, 2 * VISITORS)
    known = as_known(world, world.past, 2, before)
    assert [item.id for item in known.items] == [item.id for item in world.items], "numbers stay"
    assert len(known.past.items) == ITEMS + NEW
    assert known.newcomers == ()
    assert known.moment == world.moment + 2 * VISITORS * VISIT_MS
    log = known.past.log
    live = known.past.kinds == "like+"
    assert live.sum() == before.liked.sum() > 0
    assert known.past.positive[live].all()
    told = set(zip(log.user[live].tolist(), log.item[live].tolist(), strict=True))
    visit, place = np.nonzero(before.liked)
    assert told == set(zip(before.visitor[visit].tolist(), before.shown[visit, place].tolist(), strict=True))
    assert (np.diff(log.user) >= 0).all()
    assert (np.diff(log.time)[np.diff(log.user) == 0] >= 0).all()
    # before turn 1 nobody has entered: 3 items come with turn 1, 2 with turn 2
    assert [len(as_known(world, world.past, turn, before).past.items) - ITEMS for turn in (0, 1, 2)] == [0, 3, 5]


def test_slates_are_read_with_what_was_known_when_they_were_shown(prepared: Prepared) -> None:
    world, before = prepared.world, shown_until(prepared, 2 * VISITORS)
    past = as_known(world, world.past, 2, before).past
    found = impressions(world, past, before, history_length=5)
    assert len(found.user) == 2 * VISITORS
    for visit, (visitor, items) in enumerate(zip(before.visitor.tolist(), found.items, strict=True)):
        earlier = (before.visitor[:visit] == visitor).nonzero()[0]
        own = int((world.past.log.user == visitor).sum()) + int(before.liked[earlier].sum())
        assert found.histories.length[visit] == min(own, 5)
        assert items.tolist() == before.shown[visit].tolist()
        assert found.rewards[visit].tolist() == before.liked[visit].astype(float).tolist()
        assert found.user[visit] == f"{visitor:07d}"
    short = replace_last(before, -1)
    assert len(impressions(world, past, short, 5).items[-1]) == world.slate - 1


def replace_last(before: Run, item: int) -> Run:
    """The same, with another item in the last place of the last slate, which nobody liked."""
    shown, liked = before.shown.copy(), before.liked.copy()
    shown[-1, -1], liked[-1, -1] = item, False
    return before._replace(shown=shown, liked=liked)


def test_the_first_who_comes_trains_and_all_others_take_it_over(prepared: Prepared, tmp_path: Path) -> None:
    retraining = Retraining(prepared, prepared.world.past, [2], tmp_path, SETTINGS, silent)
    taken = []

    def follow(turn: int, before: Run) -> Change | None:
        found = retraining.at(turn, before)
        if found is None:
            return None
        taken.append((turn, found))
        return Change(*found, lambda rows: transport(rows, found[1], found[0].snapshots[0].graph))

    first, again, other = (
        run(prepared, DEFAULT, 1, follow=follow),
        run(prepared, DEFAULT, 1, follow=follow),
        run(prepared, FROZEN, 1, follow=follow),
    )
    assert [turn for turn, _ in taken] == [2, 2, 2]
    assert taken[0][1] is taken[1][1] is taken[2][1]
    assert len(retraining.releases) == 2
    assert (first.shown == again.shown).all()
    alone = run(prepared, FROZEN, 1)
    until = 2 * VISITORS
    assert (other.shown[:until] == alone.shown[:until]).all()
    assert (other.shown[until:] != alone.shown[until:]).any(), "another release orders otherwise"
    kept = list(tmp_path.iterdir())
    again_trained = Retraining(prepared, prepared.world.past, [2], tmp_path, SETTINGS, silent)
    run(prepared, DEFAULT, 1, follow=lambda turn, before: again_trained.at(turn, before) and None)
    assert list(tmp_path.iterdir()) == kept, "on the same log a release is trained once"


def same(prepared: Prepared, base: Callable[[Rows], Rows]) -> Callable[[int, Run], Change | None]:
    """The same release follows itself in turn 2."""
    matrix = Translation.of(np.eye(prepared.snapshots[0].graph.clusters))
    return lambda turn, _: Change(prepared, matrix, base) if turn == 2 else None


def test_a_release_that_follows_itself_with_all_that_was_learnt_changes_nothing(prepared: Prepared) -> None:
    world = replace(prepared, world=replace(prepared.world, newcomers=()))
    world = replace(world, snapshots=(prepared.snapshots[-1],) * prepared.world.turns)  # nobody enters on the way
    # The benefit of the doubt depends on the prior most, and so on when that was fitted.
    plain = DEFAULT._replace(bandit=DEFAULT.bandit.model_copy(update={"new_item_quantile": 0.5}))
    through, on = run(world, plain, 5), run(world, plain, 5, follow=same(world, lambda rows: rows))
    forgot = run(world, plain, 5, follow=same(world, lambda _: NO_ROWS))
    assert (through.shown[: 2 * VISITORS] == forgot.shown[: 2 * VISITORS]).all()
    assert (through.shown == on.shown).mean() > 0.9, "but for when the prior was fitted last"


def test_what_is_handed_over_is_all_that_was_learnt(prepared: Prepared) -> None:
    handed: list[Float64] = []

    def base(rows: Rows) -> Rows:
        handed.append(rows.values[rows.cluster < 0].sum(axis=0))
        return rows

    through = run(prepared, DEFAULT, 5, follow=same(prepared, base))
    assert handed[0][REWARD] == through.liked[: 2 * VISITORS].sum()
    assert handed[0][0] == pytest.approx(2 * VISITORS * prepared.world.slate)
