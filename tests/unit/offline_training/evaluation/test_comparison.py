"""A release beside another: on the same users and items, in pairs."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from infra.benchmarks.small_release import build_release
from offline_training.evaluation.comparison import COVERAGE, GAUC, INDEX, NDCG, RECALL, Comparison, compare
from offline_training.evaluation.differences import (
    CHAMPION,
    EVERYBODY,
    NEW_ITEMS,
    NEW_USERS,
    RECENT_POPULARITY,
    Difference,
)
from offline_training.evaluation.holdout import evaluate_release, held_out_questions
from offline_training.evaluation.shown import CALIBRATION, SLATES, Evidence
from offline_training.promotion.gate import gate
from offline_training.release.write import write_release
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from online_serving.snapshot import Snapshot
from tests.tiny_sets import ITEMS, genre, taste

UNKNOWN = "drama03"  # to the release that knows little
ASKED = 20  # users


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def learnt(releases: Path, trained: Trained, settings: TrainingSettings) -> Snapshot:
    return Snapshot.load(releases, write_release(releases, trained, settings, None, 1))


@pytest.fixture(scope="module")
def arbitrary(releases: Path) -> Snapshot:
    """Without any notion of taste, and of one item less."""
    catalogue = [Item(id=item) for item in reversed(ITEMS) if item != UNKNOWN]
    return Snapshot.load(releases, build_release(releases, catalogue=catalogue, history_length=6))


def compared(release: Snapshot, champion: Snapshot | None, trained: Trained) -> dict[tuple[str, str, str], Difference]:
    users = trained.sequences
    later = {user: {item for item in ITEMS if genre(item) == taste(user)} for user in users.users[:ASKED]}
    questions = held_out_questions(trained.catalogue, users, later | {"stranger": {"drama00"}})
    found = compare(release, champion, trained.catalogue, users, questions, 14.0)
    return {(one.metric, one.against, one.among): one for one in found.differences}


def test_a_release_differs_from_itself_by_nothing(learnt: Snapshot, trained: Trained) -> None:
    found = compared(learnt, learnt, trained)
    against = {key: one for key, one in found.items() if key[1] == CHAMPION}
    assert {key[0] for key in against} == {RECALL, NDCG, GAUC, INDEX, COVERAGE}
    assert found[INDEX, CHAMPION, EVERYBODY].release == 1, "the index of so few items is exact"
    assert 10 / len(ITEMS) <= found[COVERAGE, CHAMPION, EVERYBODY].release <= 1
    for one in against.values():
        assert one.mean == 0
        assert (one.low, one.high) in ((0, 0), (None, None))
    assert found[NDCG, CHAMPION, EVERYBODY].users == ASKED + 1
    assert found[NDCG, CHAMPION, NEW_USERS].users == 1
    assert found[NDCG, CHAMPION, NEW_USERS].low is None, "one user says nothing of others"


def test_the_figures_are_those_of_the_evaluation(learnt: Snapshot, trained: Trained) -> None:
    users = trained.sequences
    later = {user: {item for item in ITEMS if genre(item) == taste(user)} for user in users.users[:ASKED]}
    questions = held_out_questions(trained.catalogue, users, later)
    metrics = evaluate_release(learnt, trained.catalogue, users, questions, 14.0)
    found = {
        (one.metric, one.against): one
        for one in compare(learnt, None, trained.catalogue, users, questions, 14.0).differences
    }
    ours = found[NDCG, RECENT_POPULARITY]
    assert ours.release == pytest.approx(metrics["held_out_two_stage_ndcg_at_10"], abs=0.02)  # item lists come on top
    assert ours.other == pytest.approx(metrics["held_out_recent_popularity_ndcg_at_10"])
    recall = found[RECALL, RECENT_POPULARITY]
    assert recall.release == pytest.approx(metrics["held_out_retrieval_recall_at_50"])


def test_what_knows_nothing_of_taste_loses(learnt: Snapshot, arbitrary: Snapshot, trained: Trained) -> None:
    found = compared(arbitrary, learnt, trained)
    lost = found[NDCG, CHAMPION, EVERYBODY]
    assert lost.high is not None
    assert lost.high < -0.1
    won = compared(learnt, arbitrary, trained)
    assert won[NDCG, CHAMPION, EVERYBODY].mean == pytest.approx(-lost.mean), "the same users and items"
    assert won[NDCG, RECENT_POPULARITY, NEW_ITEMS].users > 0, "the item that the champion does not know"


def difference(
    against: str, high: float | None, metric: str = NDCG, among: str = EVERYBODY, users: int = 30
) -> Difference:
    low = None if high is None else high - 0.1
    return Difference(
        metric=metric, against=against, among=among, users=users, release=0.1, other=0.2, low=low, high=high
    )


def evidence(explored_likes: int) -> Evidence:
    return Evidence(
        slates=9, impressions=9, explored=9, explored_likes=explored_likes, likes=9, effective_likes=9.0,
        position_exponent=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "refused"),
    [
        (difference(CHAMPION, -0.1), False),  # of the whole order: what was explored is of what the champion offers
        (difference(RECENT_POPULARITY, None), False),
        (difference(RECENT_POPULARITY, -0.1, among=NEW_USERS), False),
        (difference(RECENT_POPULARITY, -0.0001), True),
        (difference(RECENT_POPULARITY, -0.0001, users=29), False),
        (difference(RECENT_POPULARITY, 0.0001), False),
        (difference(RECENT_POPULARITY, -0.1, metric=RECALL), False),  # retrieval alone does not serve
        (difference(RECENT_POPULARITY, -0.1, among=NEW_ITEMS), False),
        (difference(CHAMPION, -0.0001, metric=SLATES), True),
        (difference(CHAMPION, 0.0001, metric=SLATES), False),
        (difference(CHAMPION, -0.1, metric=SLATES, among=NEW_USERS), False),
        (difference(CHAMPION, -0.1, metric=CALIBRATION), False),
    ],
)
def test_only_a_sure_loss_is_a_reason(learnt: Snapshot, one: Difference, refused: bool) -> None:
    reasons = gate(learnt.manifest, None, Comparison("c", [one], evidence(30)))
    assert bool(reasons) == refused
    little = gate(learnt.manifest, None, Comparison("c", [one], evidence(29)))
    assert bool(little) == (refused and one.against == RECENT_POPULARITY), "too little was explored"
    assert np.isfinite(one.mean)
