"""Nearest items of a user vector, among those that are allowed."""

from typing import Any

import faiss
import numpy as np

from feature_store.arrays import Float32, Int64
from online_serving.allowed import Allowed, Uint8

_faiss: Any = faiss  # its type information does not know the keyword arguments of the search parameters


class ItemIndex:
    """The release's FAISS index, flat or an inverted file, and exact search over the items that came after it."""

    def __init__(self, index: faiss.Index) -> None:
        self._index: Any = index
        self._indexed = int(index.ntotal)
        self._lists: int = index.nlist if isinstance(index, faiss.IndexIVF) else 0  # 0: it searches all items
        faiss.omp_set_num_threads(1)

    def nearest(self, user: Float32, vectors: Float32, allowed: Allowed, count: int) -> Int64:
        """At most `count` positions of the largest inner products with user (d,), best first.

        vectors (n, d): all items, the indexed ones first. allowed, of these: the filter goes into the search, so that a
        user who has seen the nearest items still gets `count` others, if so many are allowed. Where no more are allowed
        than a search looks at anyhow, these are looked at.
        """
        if allowed.few is not None and len(allowed.few) <= self._looked_at():
            positions = allowed.few
            scores = vectors[positions] @ user
        else:
            fresh = np.flatnonzero(allowed.mask[self._indexed :]) + self._indexed
            scores, positions = self._search(user, allowed.packed, allowed.left - len(fresh), count)
            if len(fresh):
                positions = np.concatenate([positions, fresh])
                scores = np.concatenate([scores, vectors[fresh] @ user])
        best: Int64 = positions[np.argsort(-scores, kind="stable")[:count]]
        return best

    def _looked_at(self) -> int:
        """Items that a search without a filter looks at."""
        return self._indexed * self._index.nprobe // self._lists if self._lists else self._indexed

    def _search(self, user: Float32, allowed: Uint8, left: int, count: int) -> tuple[Float32, Int64]:
        """Scores and positions of the nearest of the `left` indexed items that are allowed, `count` of them if there
        are so many."""
        count = min(count, left)
        if not count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        selector = _faiss.IDSelectorBitmap(allowed)
        if not self._lists:
            return self._found(user, count, _faiss.SearchParameters(sel=selector))
        # The narrower the filter, the fewer allowed items a list holds, and the more lists are searched.
        probes = min(self._lists, self._index.nprobe * self._indexed // left)
        scores, positions = self._found(user, count, _faiss.SearchParametersIVF(sel=selector, nprobe=probes))
        if len(positions) < count:
            everywhere = _faiss.SearchParametersIVF(sel=selector, nprobe=self._lists)
            scores, positions = self._found(user, count, everywhere)
        return scores, positions

    def _found(self, user: Float32, count: int, parameters: Any) -> tuple[Float32, Int64]:
        scores, positions = self._index.search(user[None], count, params=parameters)
        found = positions[0] >= 0  # FAISS fills short lists with -1
        return scores[0][found], positions[0][found]
