"""Lists read, cut and scored; the scorer learns what the lists do not say, and is the same in ONNX."""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from offline_training.export import export_scorer
from offline_training.progress import silent
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.pi2i.lists import hit_rates, knee, read_item_lists
from offline_training.retrieval.pi2i.moments import Moments
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.pi2i.training import fit_scorer, trigger_target_softmax
from online_serving.item_lists import CROSS, TRIGGERS, Float32, Int64, ItemLists
from online_serving.towers import SCORER

D = 8


def test_lists_are_read_in_the_catalogues_numbers(tmp_path: Path) -> None:
    rows = {
        "item": ["b", "gone", "a"],
        "items": [["gone", "a", "c"], ["a"], ["b"]],
        "scores": [[3.0, 2.0, 1.0], [1.0], [0.5]],
    }
    pq.write_table(pa.table(rows), tmp_path / "part.parquet")
    catalogue = Catalogue(
        ["a", "b", "c"], {"a": 0, "b": 1, "c": 2}, np.zeros((3, 1), np.int64), np.zeros((3, 1), np.float32)
    )
    lists = read_item_lists(tmp_path, catalogue, 2)
    assert lists.items.tolist() == [[1, -1], [0, 2], [-1, -1]]
    assert lists.scores.tolist() == [[0.5, 0], [2, 1], [0, 0]]


def test_hit_rates_by_length_and_their_knee() -> None:
    lists = ItemLists(np.array([[1, 2, 3, 4, 5], [2, 0, -1, -1, -1]], np.int32), np.ones((2, 5), np.float32))
    liked = [np.array([0]), np.array([1, 0]), np.array([0]), np.array([9])]
    # In the first place, in the second, in the fifth, nowhere.
    assert hit_rates(lists, liked, np.array([1, 0, 5, 1])) == {1: 0.25, 2: 0.5, 4: 0.5, 5: 0.75}
    assert knee({1: 0.25, 2: 0.5, 4: 0.5, 5: 0.75}) == 5
    assert knee({1: 0.25, 2: 0.5, 4: 0.505, 8: 0.51}) == 2
    assert knee({1: 0.0}) == 1


def test_the_loss_is_that_of_the_wanted_item_against_all_pairs() -> None:
    logits = torch.log(torch.tensor([[1.0, 2.0, 5.0, 100.0]]))
    assert trigger_target_softmax(logits, torch.tensor([[1, 1, 0, -1]])).item() == pytest.approx(-np.log(3 / 8))


def test_onnx_equals_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorer = PairScorer(D)
    torch.nn.init.normal_(scorer.place)
    scorer.mean.normal_()
    export_scorer(scorer, D, tmp_path)
    onnx = onnxruntime.InferenceSession(tmp_path / SCORER)
    for users, pairs, scale in ((1, 1, 1.0), (1, 300, 1.0), (3, 7, 30.0)):
        inputs = {
            "triggers": torch.randn(users, TRIGGERS, D) * scale,
            "length": torch.randint(1, TRIGGERS + 1, (users,)),
            "user": torch.randn(users, D),
            "trigger": torch.randint(0, TRIGGERS, (users, pairs)),
            "target": torch.randn(users, pairs, D),
            "cross": torch.randn(users, pairs, CROSS) * scale,
        }
        with torch.no_grad():
            wanted = scorer(*inputs.values()).numpy()
        [found] = onnx.run(["logit"], {name: value.numpy() for name, value in inputs.items()})
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_lies_beyond_the_last_trigger_does_not_count() -> None:
    scorer = PairScorer(D)
    triggers, pairs = torch.randn(2, TRIGGERS, D), (torch.zeros(2, 4, dtype=torch.int64), torch.randn(2, 4, D))
    changed = triggers.clone()
    changed[:, 3:] += 1
    length, user, cross = torch.tensor([3, 3]), torch.randn(2, D), torch.randn(2, 4, CROSS)
    torch.testing.assert_close(
        scorer(triggers, length, user, *pairs, cross), scorer(changed, length, user, *pairs, cross)
    )


def test_the_scorer_learns_what_the_lists_do_not_say(tmp_path: Path) -> None:
    """The lists hold ten items in an order that means nothing; people go for the one that is like them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((11, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = ItemLists(np.full((11, 10), -1, np.int32), np.zeros((11, 10), np.float32))
    lists.items[0], lists.scores[0] = np.arange(1, 11), np.linspace(1, 0.1, 10)
    wanted = rng.integers(1, 11, 600)
    people = Moments(vectors[wanted], [np.array([0])] * 600, wanted)
    scorer = fit_scorer(lists, vectors, people.take(np.arange(500)), 0, silent)
    assert scorer is not None

    export_scorer(scorer, D, tmp_path)
    onnx = onnxruntime.InferenceSession(tmp_path / SCORER)

    def scores(
        triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
    ) -> Float32:
        numbers = {"triggers": triggers, "length": length, "user": user, "trigger": trigger}
        found: Float32 = onnx.run(["logit"], {**numbers, "target": target, "cross": cross})[0]
        return found

    allowed = np.ones(11, np.bool_)
    first = [lists.recommend(scores, vectors, vectors[w], np.array([0]), allowed, 1)[0] for w in wanted[500:]]
    assert np.mean(np.array(first) == wanted[500:]) > 0.9


def test_with_too_few_moments_there_is_no_scorer() -> None:
    lists = ItemLists(np.array([[1], [0]], np.int32), np.ones((2, 1), np.float32))
    one = Moments(np.ones((1, D), np.float32), [np.array([0])], np.array([1]))
    assert fit_scorer(lists, np.ones((2, D), np.float32), one, 0, silent) is None
