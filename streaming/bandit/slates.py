"""What was to be expected of the items of a slate, as soon as it is known how much was wanted of it.

How much somebody likes at all, how deep they are in their visits, how good the evening is: all that changes a whole
slate, and none of it is news about an item. Read as such, it judges the best items, which everybody is shown first, by
another mood than the rest. So the items of a slate are held against each other: the predictions say how what was wanted
of it should be spread over them (a conditional likelihood, as of choices in McFadden 1974).
"""

from collections.abc import Sequence

import numpy as np

from feature_store.arrays import Float64
from streaming.bandit.prior import NEAR

PRIOR = 0.1  # rewards as predicted, in every slate beside its own: a slate of which nothing was wanted says a little

Rewards = Sequence[float | None]  # of shown items; None: not known yet


def steepened(predicted: Float64, steepness: float, among: int) -> Float64:
    """Predictions (n,) of what is offered to one person at one time, as steep as rewards are there: their distances on
    the log-odds times the release's steepness, from the mean of the best `among` of them, which stays where it is.

    A calibrated model is right on average over many people, and as steep as that needs: that what it is less sure of is
    liked as often by one and less by another flattens it. Before one person what compares is steeper.
    """
    if steepness == 1.0 or not len(predicted):
        return predicted
    chance = np.clip(predicted, NEAR, 1.0 - NEAR)
    position = np.log(chance / (1.0 - chance))
    best = min(max(among, 1), len(position))
    pivot = np.partition(position, -best)[-best:].mean()
    steep: Float64 = 1.0 / (1.0 + np.exp(-np.clip(pivot + steepness * (position - pivot), -700.0, 700.0)))
    return steep


def expected(predicted: Sequence[float], rewards: Rewards, shown: Sequence[bool] | None = None) -> list[float]:
    """What was expected of each item (n,) whose reward is known, 0 of the others.

    predicted (n,): probabilities of a reward. shown (n,): whether it was seen, as far as is known; None: all were. Of
    the m items seen, of which P were predicted and R wanted so far, and with b = PRIOR,

        rate = (R + b) / (m + b m / P),   odds expected = odds predicted * odds(rate) / odds(P / m)

    so that about R are expected of the slate, and never more than 1 of an item. A reward counts as at least 0 and at
    most 1. An item alone is expected to earn what is predicted: there is nothing to hold it against.
    """
    known = [reward for reward in rewards if reward is not None]
    if not known:
        return [0.0] * len(predicted)
    among = predicted if shown is None else [p for p, was in zip(predicted, shown, strict=True) if was]
    mean = sum(among) / len(among) if among else 0.0
    factor = 1.0
    if len(among) > 1 and 0.0 < mean < 1.0:
        wanted = sum(min(max(reward, 0.0), 1.0) for reward in known)
        rate = (wanted + PRIOR) / (len(among) + PRIOR / mean)
        factor = rate * (1.0 - mean) / (mean * (1.0 - rate))
    return [
        0.0 if reward is None else p * factor / (1.0 - p + p * factor)
        for p, reward in zip(predicted, rewards, strict=True)
    ]
