"""Encodes many users at once through the towers that serve."""

import numpy as np

from feature_store.arrays import Float32, Int64
from offline_training.retrieval.sequences import Sequences
from online_serving.towers import Towers

_BATCH = 512


def encode_users(
    towers: Towers, vectors: Float32, sequences: Sequences, user: Int64, known: Int64, length: int
) -> Float32:
    """Vectors (m, d) of the users (m,) after the first known (m,) of their events, of which the newest `length` are
    read. vectors (I, d): of the items."""
    padded = np.vstack([np.zeros_like(vectors[:1]), vectors])
    blocks = [np.zeros((0, vectors.shape[1]), np.float32)]
    for start in range(0, len(user), _BATCH):
        rows = slice(start, start + _BATCH)
        read = sequences.histories(user[rows], known[rows], length)
        profile = sequences.profile[user[rows]]
        blocks.append(towers.user_vectors(padded[read.item], read.kind, read.gap, read.length, profile))
    return np.concatenate(blocks)
