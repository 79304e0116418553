"""Where items lie by who met them, and that towers begin there."""

from dataclasses import replace

import numpy as np
import pytest

from feature_store.arrays import Float32
from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, USER_TOKENS
from offline_training.evaluation.holdout import evaluate_retrieval
from offline_training.progress import silent
from offline_training.retrieval.cooccurrence import directions
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.training import fit_two_tower
from offline_training.settings import TrainingSettings

KINDS = 3
DAY_SECONDS = 86_400


def shop(people: int, items: int, likes: int, of_own_kind: float = 1.0) -> Sequences:
    """People of three kinds who like `likes` items each within 60 days, nearly all of their own kind; item j is of
    kind j mod 3, and early ones are liked more."""
    rng = np.random.default_rng(7)
    item, time = np.zeros((people, likes), np.int64), np.sort(rng.integers(0, 60 * DAY_SECONDS, (people, likes)))
    for person in range(people):
        own = np.arange(items) % KINDS == person % KINDS
        wish = np.where(own, of_own_kind / own.sum(), (1 - of_own_kind) / (~own).sum()) / (
            4 + np.arange(items) // KINDS
        )
        item[person] = rng.choice(items, likes, replace=False, p=wish / wish.sum())
    return Sequences(
        users=[f"person-{number}" for number in range(people)],
        start=np.arange(people + 1) * likes,
        item=item.ravel(),
        kind=np.zeros(people * likes, np.int64),
        kinds=["like+"],
        positive=np.ones(people * likes, np.bool_),
        time=1_000 * time.ravel(),
        visible=np.tile(np.arange(likes), people),
        profile=np.zeros((people, USER_TOKENS), np.int64),
        profile_tokens=[[] for _ in range(people)],
    )


def alike(vectors: Float32) -> float:
    """The share of everybody's five nearest that are of their kind."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    kind = np.arange(len(vectors)) % KINDS
    return float((kind[np.argsort(-near, axis=1)[:, :5]] == kind[:, None]).mean())


def test_items_of_the_same_people_lie_near_each_other() -> None:
    sequences = shop(90, 60, 12, of_own_kind=0.95)
    found = directions(sequences, sequences.positive, 60, 16)
    assert found.shape == (60, 16)
    assert (found**2).mean() == pytest.approx(1, rel=1e-4)
    assert alike(found) > 0.9
    assert np.array_equal(found, directions(sequences, sequences.positive, 60, 16))


def test_what_is_not_known_and_what_was_disliked_says_nothing() -> None:
    sequences = shop(30, 12, 4)
    known = sequences.among_first(np.full(30, 2))
    few = directions(sequences, known, 12, 4)
    later = sequences.item.copy()
    later[~known] = 0
    assert np.array_equal(few, directions(replace(sequences, item=later), known, 12, 4))
    assert not directions(sequences, np.zeros_like(known), 12, 4).any()
    assert not directions(replace(sequences, positive=np.zeros_like(known)), known, 12, 4).any()


@pytest.mark.parametrize(("people", "items"), [(1, 12), (30, 4), (3, 12)])
def test_few_people_or_items_have_few_directions(people: int, items: int) -> None:
    found = directions(shop(people, items, 3, of_own_kind=0.8), np.ones(people * 3, np.bool_), items + 5, 20)
    assert found.shape == (items + 5, 20)
    assert np.isfinite(found).all()
    assert not found[items:].any(), "nobody met these"
    assert not found[:, max(0, min(people, items) - 1) :].any()


def test_towers_learn_from_a_small_log_who_wants_what() -> None:
    """At shipped settings. From a random start they learnt how popular items are, and nothing else: recall@50 of .49
    on twice as many people and items, where popularity has .49, and .84 since they begin here."""
    sequences = shop(300, 150, 20, of_own_kind=0.9)
    catalogue = Catalogue(
        items=(names := [f"item-{number}" for number in range(150)]),
        index={name: number for number, name in enumerate(names)},
        tokens=np.zeros((150, ITEM_TOKENS), np.int64),
        features=np.zeros((150, len(ITEM_FEATURES)), np.float32),
    )
    before = np.full(300, 16)
    fitted = fit_two_tower(catalogue, sequences, before, TrainingSettings(), silent)
    quality = evaluate_retrieval(fitted.model, catalogue, sequences, before, fitted.recent_days)
    assert quality["validation_retrieval_recall_at_50"] > quality["validation_popularity_recall_at_50"] + 0.2
    assert alike(fitted.model.item_vectors()[:, :-1]) > 0.9
