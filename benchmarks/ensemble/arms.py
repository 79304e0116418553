"""Arms of the ensemble: how often an arm retrains, and what its bandit takes across."""

from typing import NamedTuple

import numpy as np

from benchmarks.pay.arms import DEFAULT, FROZEN, Arm, Rescore
from benchmarks.pay.release import Prepared
from feature_store.arrays import Float64, Int64

OMEGAS, KEEPS = (0.0, 0.2, 0.5, 0.8, 1.0), (0.25, 0.5, 1.0)


class Habit(NamedTuple):
    """An arm, whether it takes over retrained releases, and with which weight omega of the online value and share kappa
    of its trials."""

    arm: Arm
    retrains: bool
    omega: float = 0.0
    keep: float = 0.0

    @property
    def name(self) -> str:
        """The arm's."""
        return self.arm.name


def without_opinion(prepared: Prepared, tastes: int) -> Rescore:
    """Nothing is predicted of anybody: the bandit has only what came online."""
    del prepared, tastes

    def nothing(predicted: Float64, items: Int64) -> Float64:
        del items
        return np.zeros_like(predicted)

    return nothing


def periodic(omega: float, keep: float, name: str | None = None) -> Habit:
    """The bandit that is shipped, mixed anew with each release. Named by its weights in per cent."""
    return Habit(DEFAULT._replace(name=name or f"omega-{100 * omega:.0f}-kappa-{100 * keep:.0f}"), True, omega, keep)


OFFLINE = Habit(FROZEN._replace(name="offline-only"), True)
ONLINE = Habit(DEFAULT._replace(name="online-only", order=without_opinion), False)
ONCE = Habit(DEFAULT._replace(name="initialise-once"), False)
ANEW = periodic(0.0, 0.0, "begin-anew")
REBUILT = Habit(DEFAULT._replace(name="rebuilt-graph"), False)

# offline-only: every release, and no bandit. online-only: a bandit that is told no prediction; candidates and clusters
# are the first release's. initialise-once: the first release and what is shipped upon it, with no retrain. begin-anew:
# every release, and a bandit that forgets all with each. rebuilt-graph: initialise-once, whose graph is made anew at
# the first change point, with all that was learnt carried across: a retrain keeps a part of it, having learnt from it.
GRID = tuple(periodic(omega, keep) for omega in OMEGAS for keep in KEEPS)
