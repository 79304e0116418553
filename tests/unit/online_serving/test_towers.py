"""The models of a release: worked by hand, and refused when they are not what serving feeds."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.errors import ReleaseRefused
from feature_store.definitions import ITEM_TOKENS, RANKER_FEATURES, USER_TOKENS
from infra.benchmarks.small_release import build_release, items
from online_serving.towers import Towers


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    releases = tmp_path_factory.mktemp("releases")
    return releases / build_release(releases, catalogue=items(5), dimensions=3, history_length=2)


def test_a_user_is_near_the_sum_of_the_history(directory: Path) -> None:
    history = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]]], dtype=np.float32)
    history[1, 1] = 0  # the second user has met one item
    nothing, length = np.zeros((2, 2), dtype=np.int64), np.array([2, 1])
    tokens = np.zeros((2, USER_TOKENS), dtype=np.int64)
    vectors = Towers(directory).user_vectors(history, nothing, nothing, length, tokens)
    expected = np.array([[1.01, 1.01, 0.01], [1.01, 0.01, 0.01]])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)


def test_items_of_equal_content_are_equal(directory: Path) -> None:
    tokens = np.array([[3, 4, *[0] * (ITEM_TOKENS - 2)]] * 2, dtype=np.int64)
    vectors = Towers(directory).item_vectors(tokens)
    np.testing.assert_allclose(vectors[0], vectors[1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_predictions_by_hand(directory: Path) -> None:
    names = [feature.name for feature in RANKER_FEATURES]
    features = np.zeros((2, len(names) + 3), dtype=np.float32)
    features[0, names.index("affinity")] = 1.0
    features[1, names.index("popularity")] = 5.0
    np.testing.assert_allclose(Towers(directory).predict(features), [0.5, 1 / (1 + np.e)], rtol=1e-5)


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_model_that_cannot_run_is_refused(directory: Path, tmp_path: Path, content: bytes | None) -> None:
    for file in directory.glob("*.onnx"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "ranker.onnx"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ReleaseRefused, match=r"ranker\.onnx"):
        Towers(tmp_path)


def test_a_model_with_other_inputs_is_refused(directory: Path, tmp_path: Path) -> None:
    for name in ("user_tower.onnx", "item_tower.onnx", "ranker.onnx"):
        (tmp_path / name).write_bytes((directory / "item_tower.onnx").read_bytes())
    with pytest.raises(ReleaseRefused, match=r"inputs \['id', 'tokens'\], this program feeds \['gaps', 'history'"):
        Towers(tmp_path)
