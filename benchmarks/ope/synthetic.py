"""Logs whose truth is known: contextual bandits with users who come again, easy and hard for their sizes and tails."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64
from offline_training.off_policy.slate_log import SlateLog

TRUTH_USERS, VISITS_OF_THEM = 100_000, 2  # of the sample that the truth is a mean over, with exact expectations
TRUTH_SLATES = 400_000
_FEATURES, _SPREAD = 4, 0.1  # the least that the evaluated policy draws uniformly


class Kind(NamedTuple):
    """A family of logs. sharp: how much the logging policy prefers what it likes; spread: the least it draws uniformly.
    base: log odds of a reward; tail: sigma of a log-normal factor of rewards, 0: they are 0 or 1."""

    name: str
    decisions: int
    users: int
    sharp: float
    spread: float
    base: float
    tail: float = 0.0
    slots: int = 1
    actions: int = 10


KINDS = (
    Kind("plain", 2_000, 1_000, 0.3, 0.2, -1.0),
    Kind("small", 150, 75, 0.3, 0.2, -1.0),
    Kind("skewed: rewards of one in a hundred", 2_000, 800, 0.3, 0.2, -5.0),
    Kind("heavy-tailed weights", 2_000, 800, 1.0, 0.1, -1.0),
    Kind("heavy-tailed rewards", 1_000, 400, 0.3, 0.2, -1.0, tail=1.2),
    Kind("slates of three that interact", 1_000, 400, 0.3, 0.2, -1.0, slots=3, actions=8),
    Kind("hardly any support", 200, 100, 1.0, 0.1, -2.0),
)


class World(NamedTuple):
    """How rewards and policies come from features (d,): scores of actions (d, A)."""

    kind: Kind
    rewards: Float64
    levels: Float64  # (A,)
    likes: Float64  # of the logging policy

    def expected(self, x: Float64, of_user: Float64) -> Float64:
        """(n, A) mean rewards; of_user (n,): what a user brings along, unknown to everybody."""
        chance = _logistic(self.levels + 0.6 * x @ self.rewards + 0.5 * of_user[:, None])
        return chance * float(np.exp(self.kind.tail**2 / 2))

    def logging(self, x: Float64) -> Float64:
        """(n, A) preferences that the logging policy draws by."""
        return np.exp(self.kind.sharp * x @ self.likes)

    def target(self, x: Float64) -> Float64:
        """(n, A) the same of the evaluated policy."""
        return np.exp(0.6 * x @ self.rewards)

    def model(self, x: Float64) -> Float64:
        """(n, A) a model of the rewards that is only half right."""
        return _logistic(self.levels + 0.3 * x @ self.rewards) * float(np.exp(self.kind.tail**2 / 2))


def world(kind: Kind, seed: int) -> World:
    """A world of a kind."""
    rng = np.random.default_rng([seed, 1])
    shape = (_FEATURES, kind.actions)
    return World(kind, rng.normal(size=shape), kind.base + 0.7 * rng.normal(size=kind.actions), rng.normal(size=shape))


def truth(of: World, seed: int) -> float:
    """Reward per impression of the evaluated policy: exact expectations, but for slates, over many visitors."""
    rng = np.random.default_rng([seed, 2])
    if of.kind.slots > 1:
        return float(_play(of, TRUTH_SLATES, TRUTH_SLATES // 2, rng, of.target, _SPREAD).rewards.mean())
    _, x, of_user = _visitors(TRUTH_USERS * VISITS_OF_THEM, TRUTH_USERS, rng)
    return float((_mixed(of.target(x), _SPREAD) * of.expected(x, of_user)).sum(axis=1).mean())


def log(of: World, seed: int) -> SlateLog:
    """A log of the world's logging policy, ready to evaluate the other one by."""
    kind = of.kind
    played = _play(of, kind.decisions, kind.users, np.random.default_rng([seed, 3]), of.logging, kind.spread)
    left, rows = np.ones((kind.decisions, kind.actions)), np.arange(kind.decisions)
    predicted, wanted = of.model(played.x), of.target(played.x)
    target, model, expected = (np.empty_like(played.rewards) for _ in range(3))
    for slot, shown in enumerate(played.shown.T):
        chance = _mixed(wanted * left, _SPREAD)
        target[:, slot], model[:, slot] = chance[rows, shown], predicted[rows, shown]
        expected[:, slot] = (chance * predicted).sum(axis=1)
        left[rows, shown] = 0
    everywhere = np.ones(played.rewards.shape, np.bool_)
    return SlateLog(played.users, everywhere, played.rewards, target, played.chances, model, expected)


class _Played(NamedTuple):
    """n slates: users (n,), features x (n, d), shown items, their chances given the slots before, and rewards."""

    users: Int64
    x: Float64
    shown: Int64
    chances: Float64
    rewards: Float64


def _play(
    of: World, n: int, users: int, rng: np.random.Generator, prefers: Callable[[Float64], Float64], spread: float
) -> _Played:
    kind, rows = of.kind, np.arange(n)
    user, x, of_user = _visitors(n, users, rng)
    means, preferred, left = of.expected(x, of_user), prefers(x), np.ones((n, kind.actions))
    shown = np.empty((n, kind.slots), np.int64)
    chances, rewards = np.empty(shown.shape), np.empty(shown.shape)
    for slot in range(kind.slots):
        chance = _mixed(preferred * left, spread)
        drawn = (chance.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
        shown[:, slot], chances[:, slot] = drawn, chance[rows, drawn]
        mean = means[rows, drawn]
        if slot:  # after a reward the next one is rarer
            mean = mean * np.where(rewards[:, slot - 1] > 0, 0.4, 1.0)
        if kind.tail:
            rewards[:, slot] = mean * np.exp(kind.tail * rng.normal(size=n) - kind.tail**2 / 2)
        else:
            rewards[:, slot] = rng.random(n) < mean
        left[rows, drawn] = 0
    return _Played(user, x, shown, chances, rewards)


def _visitors(n: int, users: int, rng: np.random.Generator) -> tuple[Int64, Float64, Float64]:
    """Users (n,), their features (n, d), which vary from visit to visit, and what each user brings along (n,)."""
    user = np.arange(n) % users
    own, brings = rng.normal(size=(users, _FEATURES)), rng.normal(size=users)
    return user, 0.7 * own[user] + 0.7 * rng.normal(size=(n, _FEATURES)), brings[user]


def _mixed(preferred: Float64, spread: float) -> Float64:
    """Chances (n, A) by preferences, 0 where there is none, with a share of `spread` drawn uniformly."""
    possible = preferred > 0
    by_preference = preferred / preferred.sum(axis=1, keepdims=True)
    found: Float64 = (1 - spread) * by_preference + spread * possible / possible.sum(axis=1, keepdims=True)
    return found


def _logistic(x: Float64) -> Float64:
    return 1 / (1 + np.exp(-x))
