"""What a policy that learns would have earned: rejection replay, where it learns from what it would have done itself.

Li, Chu, Langford and Wang, "Unbiased Offline Evaluation of Contextual-bandit-based News Article Recommendation
Algorithms" (WSDM 2011), algorithm 2: the policy goes through the log and chooses at each event; if its choice is what
was shown, the event is its own, it is rewarded and learns; otherwise the event never was. On a log of uniformly random
actions the accepted events are distributed as if the policy had run. Of another log events are first kept with the
chance p_min / p, which leaves one whose actions are uniform: rejection sampling, as in Dudik, Erhan, Langford and Li,
"Sample-efficient Nonstationary Policy Evaluation for Contextual Bandits" (UAI 2012), section 3, with what is thrown
away to show for it.

    value = 1/K sum_{k<=K} r_k           over the K accepted events
"""

import math
from enum import StrEnum

import msgspec
import numba
import numpy as np
from scipy import stats

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.experiment.statistics import Interval

MIN_ACCEPTED = 100  # of events: a policy that learns has hardly begun
_CURVE_POINTS = 20
_EPSILON = 0.1


class Learner(StrEnum):
    """Policies that learn the actions' levels as they go, each action tried at its turn first."""

    UNIFORM = "uniform"  # learns nothing: what the others are compared with
    GREEDY = "epsilon-greedy"  # the best so far, one time in ten any
    UCB = "ucb"  # Auer, Cesa-Bianchi and Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem" (2002), UCB1
    THOMPSON = "thompson"  # Chapelle and Li, "An Empirical Evaluation of Thompson Sampling" (NeurIPS 2011), Beta(1, 1)


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A learning policy on a log."""

    learner: str
    events: int
    kept: int  # of them, so that the actions are uniform
    accepted: int
    value: Interval  # reward per event
    so_far: list[float]  # the same after each twentieth of the accepted events
    refusal: str | None


def rejection_replay(
    actions: Int64, rewards: Float64, propensity: Float64, count: int, learner: Learner, seed: int
) -> Replayed:
    """Replays a learner over events in order of time: actions (n,) out of `count`, rewards (n,) in [0, 1], propensity
    (n,) in (0, 1].

    The interval is that of independent rewards; what was learnt before moves their means and not their noise.
    Raises InvalidInput for rewards outside [0, 1] or propensities outside (0, 1].
    """
    if not len(rewards) or not (rewards.min() >= 0 and rewards.max() <= 1):
        raise InvalidInput("A learning policy is replayed on rewards in 0..1. Scale them, and import the log again.")
    if not (propensity.min() > 0 and propensity.max() <= 1):
        raise InvalidInput("Propensities must lie in (0, 1]: whatever was shown had a chance.")
    rng = np.random.default_rng(seed)
    kept = rng.random(len(rewards)) < propensity.min() / propensity
    events = np.flatnonzero(kept)
    tried = _played(actions[events], rewards[events], count, list(Learner).index(learner), rng)
    own = rewards[events][tried]
    accepted = len(own)
    value = Interval(value=float(own.mean()) if accepted else 0.0, low=None, high=None)
    if accepted > 1:
        half = float(stats.t.ppf(0.975, accepted - 1)) * float(own.std(ddof=1)) / math.sqrt(accepted)
        value = Interval(value=value.value, low=value.value - half, high=value.value + half)
    ends = np.unique(np.linspace(1, accepted, _CURVE_POINTS).astype(np.int64)) if accepted else np.zeros(0, np.int64)
    return Replayed(
        learner=learner.value,
        events=len(rewards),
        kept=len(events),
        accepted=accepted,
        value=value,
        so_far=(np.cumsum(own)[ends - 1] / ends).tolist(),
        refusal=None if accepted >= MIN_ACCEPTED else _too_few(accepted, len(rewards), len(events)),
    )


def _too_few(accepted: int, events: int, kept: int) -> str:
    return (
        f"Of {events:,} events {kept:,} are left with uniform actions, and on {accepted:,} of them the policy would "
        f"have done what was done. It takes {MIN_ACCEPTED} at least."
    )


@numba.njit(cache=True)
def _played(actions, rewards, count, kind, rng):  # type: ignore[no-untyped-def]  # numba infers it
    """(n,) which events the policy accepts."""
    times, sums = np.zeros(count), np.zeros(count)
    accepted = np.zeros(len(actions), dtype=np.bool_)
    scores = np.empty(count)
    total = 0.0
    for i in range(len(actions)):
        if kind == 0 or (kind == 1 and rng.random() < _EPSILON):
            chosen = rng.integers(0, count)
        else:
            for a in range(count):
                if kind == 3:
                    scores[a] = rng.beta(1 + sums[a], 1 + times[a] - sums[a])
                elif times[a] == 0:
                    scores[a] = np.inf
                elif kind == 1:
                    scores[a] = sums[a] / times[a]
                else:
                    scores[a] = sums[a] / times[a] + math.sqrt(2 * math.log(total) / times[a])
            chosen = np.argmax(scores)
        if chosen == actions[i]:
            accepted[i] = True
            times[chosen] += 1
            sums[chosen] += rewards[i]
            total += 1
    return accepted
