"""From one release to the next: what the laws of the ensemble are."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.sums import EXPECTED, ITEM, REWARD, D, N, Sums
from infra.benchmarks.small_release import build_release, items
from offline_training.carry_over.change_point import between, next_base
from offline_training.carry_over.logged_values import logged_values
from offline_training.retrieval.dataset import Impressions, profile_ids
from offline_training.retrieval.sequences import Sequences
from online_serving.snapshot import Snapshot
from tests.rows import by_name, rows_of
from tests.unit.offline_training.carry_over.test_logged_values import shown

NAMES = [item.id for item in items(8)]
NOTHING = Impressions.none()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Snapshot]:
    home: Path = tmp_path_factory.mktemp("releases")
    made = [build_release(home, catalogue=items(8), edges_per_cluster=8, seed=seed) for seed in (0, 1)]
    return [Snapshot.load(home, release) for release in made]


def people(count: int) -> Sequences:
    """Each of them did one thing."""
    return Sequences(
        users=[str(k) for k in range(count)],
        start=np.arange(count + 1),
        item=np.arange(count) % 8,
        kind=np.zeros(count, np.int64),
        kinds=["like+"],
        positive=np.ones(count, np.bool_),
        time=np.arange(count),
        visible=np.zeros(count, np.int64),
        profile=profile_ids([[]] * count),
        profile_tokens=[[]] * count,
    )


ROWS = {":i0": [9.0, 8, 4, 4, 2], ":i1": [5.0, 4, 1, 1, 2], "0:i0": [4.0, 3, 4, 2, 1], "2:i1": [2.0, 1, 2, 1, 1.5]}


def test_a_release_that_follows_itself_leaves_everybody_where_they_are(releases: list[Snapshot]) -> None:
    matrix = between(releases[0], releases[0], NAMES, people(40)).rows(range(4))
    known = matrix.max(axis=1) == 1
    assert known.any()
    assert (matrix[known].argmax(axis=1) == np.flatnonzero(known)).all()


def test_all_that_came_online_is_kept_and_held_against_what_the_new_release_expects(releases: list[Snapshot]) -> None:
    old, new = releases
    matrix, logged = between(old, new, NAMES, people(40)), shown([[0, 1], [1, 0]], [[1.0, 0.0], [0.0, 0.0]])
    rows = rows_of(ROWS)
    base = next_base(rows, matrix, new, logged, omega=1.0, keep=1.0)
    before, after = Sums.of(rows), Sums.of(base)
    for name in ("i0", "i1"):
        assert after.get(name)[[0, N, REWARD]] == pytest.approx(before.get(name)[[0, N, REWARD]])
    values = logged_values(new, base, logged)
    own = base.cluster == ITEM
    assert base.values[own, EXPECTED] == pytest.approx(values[own] * base.values[own, N])
    # what an item's clusters had in trials they have together, where the new graph has all the edges
    assert base.values[~own, D].sum() == pytest.approx(3 + 1)


def test_without_online_weight_only_what_is_expected_remains(releases: list[Snapshot]) -> None:
    old, new = releases
    logged = shown([[0, 1]], [[1.0, 0.0]])
    base = next_base(rows_of(ROWS), between(old, new, NAMES, people(40)), new, logged, omega=0.0, keep=0.5)
    own = base.cluster == ITEM
    assert base.values[own, REWARD] == pytest.approx(base.values[own, EXPECTED])
    assert base.values[own, N] == pytest.approx([4, 2])


def test_what_no_logged_trial_speaks_of_keeps_its_own_expectation(releases: list[Snapshot]) -> None:
    matrix = between(releases[0], releases[0], NAMES, people(0))
    rows = rows_of({":i0": ROWS[":i0"]})
    assert by_name(next_base(rows, matrix, releases[0], NOTHING, 1.0, 1.0)) == by_name(rows)


def test_sums_of_parts_are_carried_as_their_sum(releases: list[Snapshot]) -> None:
    old, new = releases
    matrix, logged = between(old, new, NAMES, people(40)), shown([[0, 1], [1, 0]], [[1.0, 0.0], [0.0, 1.0]])
    part = rows_of({":i0": [3.0, 2, 1, 1, 0.5], "0:i0": [1.0, 1, 1, 1, 0.25]})
    whole = Sums.of(rows_of(ROWS), part).rows()
    together = Sums.of(next_base(whole, matrix, new, logged, 1.0, 1.0))
    apart = Sums.of(*(next_base(rows, matrix, new, logged, 1.0, 1.0) for rows in (rows_of(ROWS), part)))
    keys = together.rows()
    spoken_of = ~np.isnan(logged_values(new, keys, logged))
    keys = keys._replace(item=keys.item[spoken_of], cluster=keys.cluster[spoken_of], values=keys.values[spoken_of])
    assert apart.select(keys) == pytest.approx(together.select(keys))
