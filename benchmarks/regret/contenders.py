"""Who takes part, and what is tried when they are tuned."""

from typing import NamedTuple

import numpy as np

from benchmarks.regret import policies
from feature_store.arrays import Float64
from streaming.settings import BanditSettings

OURS, PUBLISHED, RANDOM, ORACLE = "ours", "published", "random", "oracle"
LINUCB, LINTS, THOMPSON = "linucb", "lints", "thompson"
SQUARECB, BAG, MABWISER = "vw-squarecb", "vw-bag", "mabwiser-linucb"


class Contender(NamedTuple):
    """A policy with the parameters that are tried on other seeds. `grid` is in units of the reward's spread where a
    parameter scales rewards (`scaled`: the first); nothing is tuned with a grid of one."""

    name: str
    kind: int | None  # of policies.py; None: another library's
    grid: tuple[tuple[float, ...], ...] = ((0.0,),)
    scaled: bool = False

    def candidates(self, spread: float) -> list[Float64]:
        """The parameters that are tried where rewards have this standard deviation."""
        scale = np.array([spread if self.scaled else 1.0, 1.0, 1.0, 1.0])
        return [np.pad(np.array(values), (0, 4 - len(values)), constant_values=1.0) * scale for values in self.grid]


_shipped = BanditSettings()
_RIDGES = ((0.5, 0.1), (1.0, 0.1), (2.0, 0.1), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0))  # width, ridge

BETA = Contender(
    THOMPSON, policies.BETA_THOMPSON, ((1.0, 1.0), (1.0, 3.0), (1.0, 10.0), (1.0, 30.0), (1.0, 100.0), (3.0, 3.0))
)
LIKELY_BETA = BETA._replace(  # for rewards that are the rule rather than the exception
    grid=((1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (4.0, 2.0), (8.0, 3.0), (20.0, 8.0))
)
GAUSSIAN = Contender(
    THOMPSON,
    policies.GAUSSIAN_THOMPSON,
    ((0.1, 0.5), (0.2, 0.5), (0.4, 0.5), (0.7, 0.5), (1.0, 0.5), (1.5, 0.5)),
    scaled=True,
)
ALWAYS = (
    Contender(RANDOM, policies.RANDOM),
    Contender(ORACLE, policies.ORACLE),
    Contender("popularity", policies.POPULARITY, ((0.01,), (0.03,), (0.1,), (0.2,), (0.3,), (0.5,))),
    Contender("epsilon-greedy", policies.EPSILON_GREEDY, ((0.01,), (0.03,), (0.05,), (0.1,), (0.2,), (0.3,))),
    Contender("ucb1", policies.UCB1, ((0.03,), (0.1,), (0.2,), (0.4,), (0.7,), (1.0,)), scaled=True),
    Contender(LINUCB, policies.LINUCB, _RIDGES, scaled=True),
    Contender(
        LINTS, policies.LINTS, ((0.25, 0.1), (0.5, 0.1), (1.0, 0.1), (0.25, 1.0), (0.5, 1.0), (1.0, 1.0)), scaled=True
    ),
    Contender(
        PUBLISHED,
        policies.PUBLISHED,
        ((0.3, 0.01), (1.0, 0.01), (2.0, 0.01), (0.3, 1.0), (1.0, 1.0), (2.0, 1.0)),
        scaled=True,
    ),
    Contender(OURS, policies.OURS, ((_shipped.alpha, _shipped.edge_prior),)),
)
OFFLINE = Contender("offline-greedy", policies.OFFLINE)
VOWPAL_WABBIT = (
    # gamma_scale, learning rate
    Contender(SQUARECB, None, ((100.0, 0.5), (1000.0, 0.5), (100.0, 1.0), (1000.0, 1.0), (100.0, 2.0), (1000.0, 2.0))),
    # policies in the bag, learning rate
    Contender(BAG, None, ((3.0, 1.0), (3.0, 2.0), (3.0, 4.0), (5.0, 1.0), (5.0, 2.0), (5.0, 4.0))),
)
MAB = Contender(MABWISER, None, _RIDGES, scaled=True)
