"""Encodes many users at once through the towers that serve."""

import numpy as np

from offline_training.retrieval.dataset import Float32, Int64
from online_serving.towers import Towers

_BATCH = 1024


def encode_users(towers: Towers, vectors: Float32, history: Int64, profile: Int64) -> Float32:
    """User vectors (n, d). vectors (I, d) of items; history (n, L), item numbers plus one, newest first, 0 is padding;
    profile (n, USER_TOKENS)."""
    padded = np.vstack([np.zeros_like(vectors[:1]), vectors])
    blocks = [np.zeros((0, vectors.shape[1]), np.float32)]
    for start in range(0, len(history), _BATCH):
        rows = history[start : start + _BATCH]
        mask = (rows > 0).astype(np.float32)
        blocks.append(towers.user_vectors(padded[rows], mask, profile[start : start + _BATCH]))
    return np.concatenate(blocks)


def renumber(history: Int64, numbers: Int64, length: int) -> Int64:
    """Histories (n, L) in another catalogue's numbers, (n, length). numbers (I,): an item's number there, -1 if it is
    not there; such items leave the history, the others move up."""
    mapped = np.concatenate([[0], numbers + 1])[history]
    order = np.argsort(mapped == 0, axis=1, kind="stable")
    moved = np.take_along_axis(mapped, order, axis=1)[:, :length]
    return np.pad(moved, ((0, 0), (0, length - moved.shape[1]))).astype(np.int64)
