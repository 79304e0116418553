"""The closed loop: a policy shows items, and learns what came of them some rounds later."""

from typing import NamedTuple

import numba
import numpy as np

from benchmarks.regret.policies import Learnt, learn, score, serve
from benchmarks.regret.world import Environment
from feature_store.arrays import Float64, Int64


class Visits(NamedTuple):
    """What chance brings, the same for every policy: both (rounds,)."""

    user: Int64
    luck: Float64  # uniform in [0, 1): a noisy reward is 1 where this is below its expectation


class Run(NamedTuple):
    """What a policy did, all (rounds,)."""

    shown: Int64
    reward: Float64  # what it learnt from
    expected: Float64  # what it is judged by: the same without the noise


def visits(world: Environment, rounds: int, seed: int) -> Visits:
    """Users in random order, each as often as any other."""
    rng = np.random.default_rng(seed)
    users = len(world.clusters)
    order = rng.permuted(np.tile(np.arange(users), (-(-rounds // users), 1)), axis=1).ravel()[:rounds]
    return Visits(order, rng.random(rounds))


def play(kind: int, parameters: Float64, state: Learnt, world: Environment, came: Visits, delay: int, seed: int) -> Run:
    """Runs a policy, which changes its state in place. The decision of round t knows the rewards of the rounds before
    t - delay."""
    return Run(*_play(kind, parameters, state, world, came, delay, seed))


@numba.njit(cache=True)
def available(world, seen, user, now, candidates):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills candidates with the items that can be shown to the user in round `now`; returns how many there are."""
    n = 0
    for at in range(world.menu_start[user], world.menu_start[user + 1]):
        if world.arrival[world.menu[at]] <= now and not seen[at]:
            candidates[n] = world.menu[at]
            n += 1
    return n


@numba.njit(cache=True)
def best(mean, bonus):  # type: ignore[no-untyped-def]  # numba infers it
    """The position of the highest mean + bonus, one of them at random."""
    chosen, ties, highest = 0, 0, -np.inf
    for i in range(len(mean)):
        value = mean[i] + bonus[i]
        if value > highest:
            chosen, ties, highest = i, 1, value
        elif value == highest:
            ties += 1
            if np.random.random() * ties < 1.0:  # noqa: NPY002 - seeded
                chosen = i
    return chosen


@numba.njit  # not cached, see policies.score
def _play(kind, parameters, state, world, came, delay, seed):  # type: ignore[no-untyped-def]  # numba infers it
    np.random.seed(seed)  # noqa: NPY002 - seeded
    rounds, items = len(came.user), len(world.arrival)
    shown, reward, expected = np.empty(rounds, np.int64), np.empty(rounds), np.empty(rounds)
    seen = np.zeros(len(world.menu), np.bool_)
    candidates, predicted = np.empty(items, np.int64), np.empty(items)
    mean, bonus, masks = np.empty(items), np.empty(items), np.empty(items, np.uint64)
    for now in range(rounds):
        user = came.user[now]
        n = available(world, seen, user, now, candidates)
        for i in range(n):
            predicted[i] = world.predicted[user, candidates[i]]
        score(kind, parameters, state, world, user, now, candidates[:n], predicted[:n], mean[:n], bonus[:n], masks[:n])
        item = candidates[best(mean[:n], bonus[:n])]
        serve(kind, state, world, user, item)
        if world.once:
            start, end = world.menu_start[user], world.menu_start[user + 1]
            seen[start + np.searchsorted(world.menu[start:end], item)] = True
        shown[now], expected[now] = item, world.reward[user, item]
        reward[now] = expected[now]
        if world.noisy:
            reward[now] = 1.0 if came.luck[now] < expected[now] else 0.0
        past = now - delay
        if past >= 0:
            learn(kind, state, world, came.user[past], shown[past], reward[past])
    return shown, reward, expected
