"""The part of the catalogue that a user may be shown while an experiment parts it."""

import numpy as np

from feature_store.arrays import Int64
from feature_store.contracts.experiments import Experiment
from online_serving.snapshot import Snapshot

_RELEASES = 4  # whose catalogues are remembered: what serves, what did, and those of variants


class Parts:
    """Which variant items belong to. Each item of a release is looked at once, for 2 us of the event loop."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._of: dict[str, Int64] = {}  # by release, in the order of its items, as far as they have been looked at

    def of(self, snapshot: Snapshot) -> Int64:
        """(size,) the number of each item's variant, -1: of none."""
        known = self._of.pop(snapshot.release, np.zeros(0, np.int64))
        if len(known) < snapshot.size:
            new = [self._experiment.corpus(item) for item in snapshot.graph.ids(range(len(known), snapshot.size))]
            known = np.append(known, np.array(new, dtype=np.int64))
        self._of[snapshot.release] = known
        if len(self._of) > _RELEASES:
            del self._of[next(iter(self._of))]
        return known[: snapshot.size]


class Corpus:
    """The items of one variant, or those of none for whoever is not in the experiment; these may see everything once
    no item is left for them."""

    def __init__(self, parts: Parts, number: int) -> None:
        """number: of the variant, -1: none."""
        self._parts, self._number = parts, number

    def excluded(self, snapshot: Snapshot) -> Int64:
        """Positions of what is not shown, ascending."""
        of = self._parts.of(snapshot)
        found = np.flatnonzero(of != self._number)
        return found[:0] if self._number < 0 and len(found) == len(of) else found
