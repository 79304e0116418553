"""Forward decay: what a trial counts fades with time, and sums stay additive.

A trial of time t adds exp((t - L) / tau) times what it would add, L being a landmark that does not move. A reader at
time T counts in trials of T, each of which adds exp((T - L) / tau): a trial of t is worth exp(-(T - t) / tau) of them.
Cormode, Shkapenyuk, Srivastava & Xu, ICDE 2009.
"""

import math
from typing import NamedTuple

_DAY_MS = 86_400_000.0
_MOST = 50.0  # times tau beyond the landmark: from there on nothing fades, lest sums grow out of float64


class Decay(NamedTuple):
    """How trials fade."""

    days: float | None  # tau; None: nothing fades
    landmark: int  # L, ms since the epoch

    def trial(self, time: int) -> float:
        """What one trial of the time (ms since the epoch) adds to sums: 1 at the landmark, and always if nothing
        fades."""
        if self.days is None:
            return 1.0
        return math.exp(min((time - self.landmark) / (self.days * _DAY_MS), _MOST))


NOTHING_FADES = Decay(None, 0)
