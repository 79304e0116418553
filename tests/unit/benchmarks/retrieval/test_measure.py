"""How models are asked, tuned and held against each other."""

from typing import Any

import numpy as np
import pytest

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.measure import Contender, FittedModel, ask, measure, tune
from benchmarks.retrieval.protocols import TEST, Protocol, Task
from benchmarks.retrieval.report import goals, report, table
from feature_store.arrays import Float64, Int64
from feature_store.contracts.catalogue import Item
from offline_training.evaluation.baselines import Interactions
from offline_training.evaluation.metrics import interval
from offline_training.progress import silent

#  users 0 and 1; user 0 met item 0, user 1 items 0 and 1; they want 1, and 2 and 3.
LOG = Interactions(np.array([0, 1, 1]), np.array([0, 0, 1]), np.zeros(3, np.int64), 2, 4)
DATASET = Dataset(LOG, np.full(3, "visit+"), np.ones(3, np.bool_), [Item(id=str(j)) for j in range(4)], [[], []])
ROWS = np.arange(3)
TASK = Task(ROWS, np.array([0, 1]), ROWS, [np.array([1]), np.array([2, 3])], {"second": np.array([False, True])})
PROTOCOL = Protocol(DATASET, TASK, {TEST: TASK}, [("recall", 1), ("ndcg", 2)], ("recall", 1), {})


def constant(name: str, *scores: float) -> Contender:
    def fit(dataset: Dataset, train: Int64, seed: int, luck: float = 0.0) -> FittedModel:
        row = np.array(scores) + luck * seed * np.array([0, 1, 0, 0])
        return FittedModel({name: lambda users, past: np.tile(row, (len(users), 1))})

    return Contender(name, fit)


def scoring(*scores: float) -> Any:
    return lambda users, past: np.tile(np.array(scores, np.float64), (len(users), 1))


def test_what_somebody_has_met_is_not_ranked() -> None:
    values = ask(scoring(9, 3, 2, 1), DATASET, TASK, [("recall", 1), ("recall", 2)])
    assert values["recall@1"].tolist() == [1, 0.5]
    assert values["recall@2"].tolist() == [1, 1]


def test_a_model_that_says_nothing_gets_nothing() -> None:
    assert ask(scoring(1, 1, 1, 1), DATASET, TASK, [("hit_rate", 1)])["hit_rate@1"].tolist() == [0, 1]
    # user 0: items 2 and 3 tie with the wanted one and stand before it; user 1 wants all that is left


def test_asking_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(scoring(9, 3, 2, 1), DATASET, TASK, [("ndcg", 2)])
    monkeypatch.setattr("benchmarks.retrieval.measure._SCORES", 4)
    seen: list[tuple[list[int], list[int]]] = []

    def score(users: Int64, past: Int64) -> Float64:
        seen.append((users.tolist(), past.tolist()))
        return np.tile(np.array([9.0, 3, 2, 1]), (len(users), 1))

    assert ask(score, DATASET, TASK, [("ndcg", 2)])["ndcg@2"] == pytest.approx(whole["ndcg@2"])
    assert seen == [([0], [0]), ([1], [1, 2])], "each with their own past"


def test_the_grid_is_tried_on_validation_and_the_best_is_taken() -> None:
    def fit(dataset: Dataset, train: Int64, seed: int, order: list[float]) -> FittedModel:
        return FittedModel({"m": scoring(*order)})

    chosen, tried = tune(Contender("m", fit, [{"order": [0, 0, 1, 1]}, {"order": [0, 2, 1, 1]}]), PROTOCOL, 0)
    assert chosen == {"order": [0, 2, 1, 1]}
    assert [value for _, value in tried] == [0.25, 0.75]


def test_intervals_by_hand() -> None:
    mean, low, high = interval(np.array([0.0, 0.5, 1.0]))
    assert (mean, high - mean) == pytest.approx((0.5, 1.96 * 0.5 / np.sqrt(3)))
    assert mean - low == pytest.approx(high - mean)
    assert interval(np.array([0.3])) == (0.3, -np.inf, np.inf)


def test_models_are_held_against_each_other_on_the_same_users() -> None:
    figures: Any = {}
    for name, scores in (("two_tower", (0, 2, 1, 1)), ("other", (0, 1, 2, 3))):
        figures |= measure(constant(name, *scores), {}, PROTOCOL, [0], silent)
    found = report(PROTOCOL, figures)[TEST]
    assert found["users"] == {"all": 2, "second": 1}
    # recall@1 by user: ours 1 and 1/2 (2 and 3 tie, but both are wanted), the other's 0 and 1/2
    assert found["models"]["other"]["all"]["recall@1"]["mean"] == 0.25
    assert found["models"]["two_tower"]["second"]["recall@1"]["mean"] == 0.5
    ahead = found["ahead"]["two_tower"]["other"]["recall@1"]
    assert ahead == pytest.approx({"mean": 0.5, "low": 0.5 - 0.98, "high": 0.5 + 0.98})
    assert table(report(PROTOCOL, figures))[-1][0] == "two_tower"
    wanted = {goal.name: goal for goal in goals("ml-100k", PROTOCOL, report(PROTOCOL, figures))}
    assert wanted["ml-100k.recall@1.ahead_of_peers"].value == pytest.approx(-0.48)
    assert not wanted["ml-100k.recall@1.ahead_of_peers"].met


def test_a_user_counts_once_however_many_seeds() -> None:
    contender = constant("two_tower", 0, 1, 2, 2)
    seeded = Contender(contender.name, contender.fit, contender.grid, seeded=True)
    figures = measure(seeded, {"luck": 2.0}, PROTOCOL, [0, 1], silent)
    assert [values["recall@1"].tolist() for values in figures["two_tower", TEST].values] == [[0, 0.5], [1, 0.5]]
    recall = report(PROTOCOL, figures)[TEST]["models"]["two_tower"]["all"]["recall@1"]
    assert (recall["mean"], recall["seeds"]) == (0.5, [0.25, 0.75])
    assert recall["high"] == 0.5, "both users have the same mean over seeds"
