"""What a candidate is truly worth in a world that is known."""

import numpy as np

from benchmarks.pay.loop import VISIT_MS, visitor_key
from benchmarks.pay.release import Prepared
from benchmarks.pay.world import opinions
from feature_store.arrays import Bool, Int64
from offline_training.experiment.statistics import Interval
from offline_training.off_policy.intervals import clustered, skewed_interval
from offline_training.replay.moments import Moment
from online_serving.pipeline.pipeline import Weighed
from streaming.bandit.exploration import choose_slate

_DRAWS = 5  # slates of a candidate at each moment


class Tally:
    """Draws a candidate's slates at each moment that is replayed, and asks the visitors of that very run."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        self._prepared = prepared
        self._world = prepared.world
        self._likes = opinions(prepared.world, seed)
        self._visitor = {visitor_key(number): number for number in range(len(prepared.users))}
        self._rng = np.random.default_rng([seed, 9])
        self._earned = self._shown = 0.0

    def watch(self, moment: Moment, weighed: Weighed) -> None:
        """Takes a moment in."""
        world, size = self._world, moment.decision.shown
        turn = (moment.decision.time - world.moment) // VISIT_MS // len(world.visitors)
        likes = self._likes[world.tastes[turn], self._visitor[moment.decision.user]]
        seen = np.array(world.seen[:size])
        for _ in range(_DRAWS):
            slate = choose_slate(weighed.view.mean, weighed.view.bonus, size, *weighed.exploration, self._rng)
            items = moment.snapshot.graph.ids(weighed.candidates[slate.shown].tolist())
            shown = self._prepared.snapshots[-1].positions(items)
            self._earned += float((likes[shown] * seen[: len(shown)]).sum())
            self._shown += len(shown)

    def value(self) -> float:
        """Likes per impression."""
        return self._earned / self._shown


def mean_interval(liked: Bool, present: Bool, visitor: Int64) -> Interval:
    """Likes per impression of a run (n, slate), with its 95 % interval over visitors (n,)."""
    shown = present.sum(axis=1).astype(np.float64)
    value = float(liked[present].sum() / shown.sum())
    earned = np.where(present, liked, 0.0).sum(axis=1)
    return skewed_interval(clustered(value, (earned - value * shown) / shown.sum(), visitor), 0.95)
