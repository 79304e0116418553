"""When users went for something, and what was known of them then: what item lists are measured on and scored by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.two_tower import TwoTower

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_MOMENTS = 50_000


@dataclass(frozen=True)
class Moments:
    """n moments at which somebody went for something: user (n, d) vectors as of then; liked: the items they had liked,
    newest first; wanted (n,). Neither the vectors nor the lists may know what was wanted."""

    user: Float32
    liked: Sequence[Int64]
    wanted: Int64

    def __len__(self) -> int:
        return len(self.wanted)

    def take(self, rows: Int64) -> "Moments":
        """The chosen ones."""
        return Moments(self.user[rows], [self.liked[row] for row in rows], self.wanted[rows])


def moments(model: TwoTower, sequences: Sequences, before: Int64) -> Moments:
    """The positives that come after the first before[u] events of each user u, which is what the model has seen; the
    newest MAX_MOMENTS."""
    rows = np.flatnonzero(sequences.positive & ~sequences.among_first(before))
    rows = rows[np.argsort(sequences.time[rows], kind="stable")][-MAX_MOMENTS:]
    user = sequences.user[rows]
    histories = sequences.histories(user, sequences.visible[rows], model.history_length)
    vectors = model.user_vectors(model.item_vectors(), histories, sequences.profile[user])
    return Moments(vectors, [histories.liked_items(row) for row in range(len(rows))], sequences.item[rows])
