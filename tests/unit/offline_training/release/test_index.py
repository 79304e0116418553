"""The index is exact while it can be, and as good as it says when it is not."""

import logging

import faiss
import numpy as np
import pytest

from offline_training.clusters import unit
from offline_training.release import index as module
from offline_training.release.index import RECALL_FLOOR, build_index


def vectors(count: int, groups: int, spread: float, seed: int) -> np.ndarray:
    """Unit vectors (count, 16) around the same `groups` directions, whatever the seed."""
    centres = unit(np.random.default_rng(0).normal(size=(groups, 16)).astype(np.float32))
    rng = np.random.default_rng(seed)
    return unit((centres[rng.integers(0, groups, count)] + spread * rng.normal(size=(count, 16))).astype(np.float32))


def test_a_small_catalogue_is_searched_exactly() -> None:
    built = build_index(vectors(200, 3, 1.0, 1), vectors(20, 3, 1.0, 2))
    assert isinstance(built.index, faiss.IndexFlatIP)
    assert (built.index.ntotal, built.probes, built.recall) == (200, 0, 1.0)


def test_a_large_one_searches_as_many_lists_as_the_floor_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", 1_000)
    items, users = vectors(20_000, 300, 0.1, 1), vectors(100, 300, 0.1, 2)
    built = build_index(items, users)
    assert isinstance(built.index, faiss.IndexIVF)
    assert built.index.nlist == 565
    assert 0 < built.probes == built.index.nprobe <= 565 // 8

    scores = users @ items.T
    wanted = np.argsort(-scores, axis=1)[:, :100]
    found = built.index.search(users, 100)[1]
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(wanted.tolist(), found.tolist(), strict=True)])
    assert built.recall == pytest.approx(recall, abs=1e-6)
    assert recall >= RECALL_FLOOR
    built.index.nprobe = built.probes // 2 if built.probes > 8 else 1
    fewer = built.index.search(users, 100)[1]
    assert np.mean([len(set(a) & set(b)) / 100 for a, b in zip(wanted.tolist(), fewer.tolist(), strict=True)]) < recall


def test_vectors_without_structure_keep_exact_search_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EXACT_UP_TO", 1_000)
    rng = np.random.default_rng(0)
    with caplog.at_level(logging.WARNING):
        built = build_index(*(unit(rng.normal(size=(n, 32)).astype(np.float32)) for n in (4_000, 50)))
    assert isinstance(built.index, faiss.IndexFlatIP)
    assert built.index.ntotal == 4_000
    assert (built.probes, built.recall) == (0, 1.0)
    assert "the index searches all 4000 items of the catalogue" in caplog.text
