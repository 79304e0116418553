"""Lists read, cut and scored; the scorer learns what the lists do not say, and is the same in ONNX."""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from feature_store.arrays import Float32, Int64
from offline_training.progress import silent
from offline_training.release.export import export_scorer
from offline_training.retrieval.pi2i.lists import hit_rates, knee, read_item_lists
from offline_training.retrieval.pi2i.moments import Moments
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.pi2i.training import fit_scorer, trigger_target_softmax
from online_serving.item_lists import CROSS, TARGETS, TOTAL, TRIGGERS, ItemLists
from online_serving.release_files import SCORER

D = 8


def test_lists_are_read_in_the_catalogues_numbers(tmp_path: Path) -> None:
    rows = {
        "item": ["b", "gone", "a"],
        "items": [["gone", "a", "c"], ["a"], ["b"]],
        "scores": [[3.0, 2.0, 1.0], [1.0], [0.5]],
    }
    pq.write_table(pa.table(rows), tmp_path / "part.parquet")
    lists = read_item_lists(tmp_path, {"a": 0, "b": 1, "c": 2}, 2)
    assert lists.items.tolist() == [[1, -1], [0, 2], [-1, -1]]
    assert lists.scores.tolist() == [[0.5, 0], [2, 1], [0, 0]]


def at(liked: list[list[int]], wanted: list[int], met: list[list[int]] | None = None) -> Moments:
    """Moments of people without vectors."""
    past, all_past = ([np.array(items, np.int64) for items in of] for of in (liked, met or liked))
    return Moments(np.arange(len(wanted)), np.zeros((len(wanted), D), np.float32), past, all_past, np.array(wanted))


def test_hit_rates_by_length_and_their_knee() -> None:
    items = np.full((10, 5), -1, np.int32)
    items[0], items[1, :2] = [1, 2, 3, 4, 5], [2, 0]
    lists = ItemLists(items, np.ones(items.shape, np.float32))
    # In the first place; in the second, met once more; in the fifth; nowhere.
    moments = at([[0], [1, 0], [0], [9]], [1, 0, 5, 1])
    assert hit_rates(lists, moments) == {1: 0.25, 2: 0.5, 4: 0.5, 5: 0.75}
    assert set(hit_rates(lists, at([], [])).values()) == {0}
    assert knee({1: 0.25, 2: 0.5, 4: 0.5, 5: 0.75}) == 5
    assert knee({1: 0.25, 2: 0.5, 4: 0.505, 8: 0.51}) == 2
    assert knee({1: 0.0}) == 1


def test_what_is_not_scored_is_not_found() -> None:
    """The lists of 0 and 1 begin at 2 and at 402. Item 302 comes late in the one; the longer they are, the more do both
    name, which leaves no room for it."""
    width = 2 * TARGETS
    items = np.full((1402, width), -1, np.int32)
    items[0], items[1] = np.arange(2, width + 2), np.arange(402, width + 402)
    lists = ItemLists(items, np.tile(np.linspace(1, 0.9, width, dtype=np.float32), (len(items), 1)))
    rates = hit_rates(lists, at([[0, 1]], [302]))
    assert (rates[256], rates[512], rates[width]) == (0, 1, 0)


def test_everything_but_what_was_met_may_be_found() -> None:
    found = [allowed.tolist() for allowed in at([[0], [1]], [1, 1], met=[[0, 2], [0, 1]]).allowed(3)]
    assert found == [[False, True, False], [False, True, True]]


def test_the_loss_is_that_of_the_wanted_item_against_all_pairs() -> None:
    logits = torch.log(torch.tensor([[3.0, 2.0, 5.0, 100.0]]))
    padding = torch.tensor([[False, False, False, True]])
    assert trigger_target_softmax(logits, padding).item() == pytest.approx(-np.log(3 / 10))


def test_an_untrained_scorer_ranks_as_the_lists_do() -> None:
    cross = torch.randn(2, 4, CROSS)
    pairs = (torch.zeros(2, 4, dtype=torch.int64), torch.randn(2, 4, D))
    logits = PairScorer(D)(torch.randn(2, TRIGGERS, D), torch.tensor([3, 1]), torch.randn(2, D), *pairs, cross)
    assert (logits.argsort(dim=1) == cross[:, :, TOTAL].argsort(dim=1)).all()


def trained() -> PairScorer:
    """Every part of it says something."""
    torch.manual_seed(0)
    scorer = PairScorer(D)
    for parameter in scorer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scorer.mean.normal_()
    scorer.deviation.uniform_(0.5, 2.0)
    return scorer


def test_onnx_equals_pytorch(tmp_path: Path) -> None:
    scorer = trained()
    export_scorer(scorer, D, tmp_path)
    onnx = onnxruntime.InferenceSession(tmp_path / SCORER)
    for length, pairs, scale in ((1, 1, 1.0), (7, 300, 1.0), (TRIGGERS, 7, 30.0)):
        inputs = {
            "triggers": torch.randn(1, TRIGGERS, D) * scale,
            "length": torch.tensor([length]),
            "user": torch.randn(1, D),
            "trigger": torch.randint(0, length, (1, pairs)),
            "target": torch.randn(1, pairs, D),
            "cross": torch.randn(1, pairs, CROSS) * scale,
        }
        with torch.no_grad():
            wanted = scorer(*inputs.values()).numpy()
        [found] = onnx.run(["logit"], {name: value.numpy() for name, value in inputs.items()})
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_lies_beyond_the_last_trigger_does_not_count() -> None:
    scorer = trained()
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
    wanted = rng.integers(1, 11, 2_600)
    past = [np.array([0])] * 2_600
    people = Moments(np.arange(2_600), vectors[wanted], past, past, wanted)
    scorer = fit_scorer(lists, vectors, people.take(np.arange(2_500)), 0, silent)
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
    first = [lists.recommend(scores, vectors, vectors[w], np.array([0]), allowed, 1)[0] for w in wanted[2_500:]]
    assert np.mean(np.array(first) == wanted[2_500:]) > 0.9


def test_with_too_few_moments_there_is_no_scorer() -> None:
    lists = ItemLists(np.array([[1], [0]], np.int32), np.ones((2, 1), np.float32))
    past = [np.array([0])]
    one = Moments(np.zeros(1, np.int64), np.ones((1, D), np.float32), past, past, np.array([1]))
    assert fit_scorer(lists, np.ones((2, D), np.float32), one, 0, silent) is None
