"""Where items lie by who met them, before anything is trained: items of the same people begin near each other.

Towers that begin at random learn how popular items are first, and a small log ends before they learn anything else: a
user's vector says nothing as long as those of items do not, and the other way round. So item ids begin as the singular
vectors of who liked what, each like divided by the roots of how many its user and its item have (Dhillon, KDD 2001,
section 4): the first of them, which is popularity alone, is left out, and each counts by the square of its value.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from feature_store.arrays import Bool, Float32, Float64
from offline_training.retrieval.sequences import Sequences

MOST = 5_000_000  # newest likes: with more, towers learn it by themselves


def directions(sequences: Sequences, known: Bool, items: int, dimensions: int) -> Float32:
    """(items, dimensions) of unit mean square, as far as there are so many; zeros elsewhere, and if there is too little
    to tell. known (n,): the events that count."""
    found = np.zeros((items, dimensions), np.float32)
    rows = np.flatnonzero(known & sequences.positive)
    rows = rows[np.argsort(-sequences.time[rows], kind="stable")[:MOST]]
    pairs = np.unique(sequences.user[rows] * items + sequences.item[rows])
    user, item = np.divmod(pairs, items)
    many = min(dimensions + 1, len(np.unique(user)) - 1, len(np.unique(item)) - 1)
    if many < 2:
        return found
    people = len(sequences.users)
    per_user, per_item = np.bincount(user, minlength=people), np.bincount(item, minlength=items)
    liked = csr_array((1 / np.sqrt(per_user[user] * per_item[item]), (user, item)), shape=(people, items))
    _, value, vectors = svds(liked, k=many, v0=np.ones(min(liked.shape)), return_singular_vectors="vh")
    order = np.argsort(-value)[1:]
    largest = np.abs(vectors[order]).argmax(axis=1)
    sign = np.sign(vectors[order, largest])
    own: Float64 = (vectors[order] * (sign * value[order] ** 2)[:, None]).T
    size = np.sqrt((own**2).mean())
    if size > 0:
        found[:, : own.shape[1]] = own / size
    return found
