"""What serving computes is what training computed."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from feature_store.definitions import RANKER_FEATURES
from offline_training.ranking.model import Form, Ranker
from offline_training.release.export import export_ranker

DIMENSIONS = 8
WIDTH = len(RANKER_FEATURES) + DIMENSIONS


@pytest.fixture(scope="module", params=list(Form), ids=lambda form: form.name)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ranker, ort.InferenceSession]:
    """A ranker with weights as after training, and the graph exported from it."""
    torch.manual_seed(0)
    ranker = Ranker(DIMENSIONS, request.param)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.normal_(std=0.3)
        ranker.places.weight[0] = 0  # padding is never trained
    ranker.standardise(torch.randn(500, WIDTH) * 3 + 1)
    ranker.slope.fill_(0.7)
    ranker.blend.copy_(torch.tensor([0.9, 0.01]))
    ranker.levels.copy_(torch.tensor([0.3, -0.5, 0.2]))
    ranker.intercept.fill_(-1.2)
    directory = tmp_path_factory.mktemp("release")
    export_ranker(ranker, DIMENSIONS, directory)
    return ranker.eval(), ort.InferenceSession(directory / "ranker.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("rows", [1, 2, 777])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6, 1e30])
def test_onnx_equals_pytorch(both: tuple[Ranker, ort.InferenceSession], rows: int, scale: float) -> None:
    ranker, session = both
    features = (np.random.default_rng(rows).normal(size=(rows, WIDTH)) * scale).astype(np.float32)
    with torch.no_grad():
        expected = ranker(torch.from_numpy(features)).numpy()
    [found] = session.run(["probability"], {"features": features})
    assert found.shape == (rows,)
    assert np.abs(found - expected).max() <= 1e-5
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("value", [0.0, np.inf, -np.inf, np.finfo(np.float32).max])
def test_extreme_values_give_the_same_probability(both: tuple[Ranker, ort.InferenceSession], value: float) -> None:
    ranker, session = both
    features = np.full((3, WIDTH), value, np.float32)
    with torch.no_grad():
        expected = ranker(torch.from_numpy(features)).numpy()
    [found] = session.run(["probability"], {"features": features})
    assert np.abs(found - expected).max() <= 1e-5
    assert np.isfinite(found).all()


def test_the_graph_knows_no_place(both: tuple[Ranker, ort.InferenceSession]) -> None:
    ranker, session = both
    assert [entry.name for entry in session.get_inputs()] == ["features"]
    features = torch.randn(5, WIDTH)
    with torch.no_grad():
        front = ranker.logits_at(features, torch.zeros(5, dtype=torch.int64))
        assert torch.equal(front, ranker.logits(features)), "the first place takes nothing off"
        assert not torch.equal(ranker.logits_at(features, torch.ones(5, dtype=torch.int64)), front)
