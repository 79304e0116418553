"""When users went for something, and what was known of them then: what item lists are measured on and scored by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.arrays import Bool, Float32, Int64
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.two_tower import TwoTower

MAX_MOMENTS = 50_000


@dataclass(frozen=True)
class Moments:
    """n moments at which somebody went for something: person (n,); user (n, d) vectors as of then; liked: the items
    they had liked, newest first; met: all that they had met; wanted (n,). Neither the vectors nor the lists may know
    what was wanted."""

    person: Int64
    user: Float32
    liked: Sequence[Int64]
    met: Sequence[Int64]
    wanted: Int64

    def __len__(self) -> int:
        return len(self.wanted)

    def allowed(self, items: int) -> Iterator[Bool]:
        """Of each moment in turn, which of the items (items,) may be found: as in serving, none that was met. It is one
        array, which changes."""
        allowed = np.ones(items, np.bool_)
        for met, wanted in zip(self.met, self.wanted, strict=True):
            past = met[met != wanted]
            allowed[past] = False
            yield allowed
            allowed[past] = True

    def take(self, rows: Int64) -> "Moments":
        """The chosen ones."""
        liked, met = ([items[row] for row in rows] for items in (self.liked, self.met))
        return Moments(self.person[rows], self.user[rows], liked, met, self.wanted[rows])


def moments(model: TwoTower, sequences: Sequences, before: Int64) -> Moments:
    """The positives that come after the first before[u] events of each user u, which is what the model has seen; the
    newest MAX_MOMENTS."""
    rows = np.flatnonzero(sequences.positive & ~sequences.among_first(before))
    rows = rows[np.argsort(sequences.time[rows], kind="stable")][-MAX_MOMENTS:]
    person, known = sequences.user[rows], sequences.visible[rows]
    histories = sequences.histories(person, known, model.history_length)
    vectors = model.user_vectors(model.item_vectors(), histories, sequences.profile[person])
    start = sequences.start[person]
    return Moments(
        person=person,
        user=vectors,
        liked=[histories.liked_items(row) for row in range(len(rows))],
        met=[sequences.item[first : first + count] for first, count in zip(start, known, strict=True)],
        wanted=sequences.item[rows],
    )
