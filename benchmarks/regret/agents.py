"""Vowpal Wabbit and mabwiser in the same closed loop, through their Python interfaces."""

from collections import deque
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.regret.contenders import MABWISER, SQUARECB
from benchmarks.regret.loop import Run, Visits
from benchmarks.regret.world import Environment
from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput


class Trial(NamedTuple):
    """One decision, as its feedback will find it."""

    user: int
    candidates: Int64
    place: int  # of the shown item among the candidates
    probability: float


class Agent(Protocol):
    """A policy of another library."""

    def choose(self, user: int, candidates: Int64) -> Trial:
        """Decides what to show."""

    def learn(self, trial: Trial, reward: float) -> None:
        """Takes in the reward."""


def agent(name: str, parameters: Float64, world: Environment, seed: int) -> Agent:
    """The contender of another library. Raises InvalidInput if the library is not installed."""
    try:
        if name == MABWISER:
            return Mabwiser(parameters, world, seed)
        if name == SQUARECB:
            arguments = f"--squarecb --gamma_scale {parameters[0]:g} --learning_rate {parameters[1]:g}"
        else:
            arguments = f"--bag {parameters[0]:.0f} --learning_rate {parameters[1]:g}"
        return VowpalWabbit(arguments, world, seed)
    except ImportError as error:
        raise InvalidInput(
            f"The bench compares with {error.name}, which is not installed: pip install 'matchloop[bench]'"
        ) from error


def play_agent(agent: Agent, world: Environment, came: Visits, delay: int) -> Run:
    """loop.play for an agent."""
    rounds = len(came.user)
    run = Run(np.empty(rounds, np.int64), np.empty(rounds), np.empty(rounds))
    seen = np.zeros(world.reward.shape, np.bool_)
    pending: deque[Trial] = deque()
    for now in range(rounds):
        user = int(came.user[now])
        menu = world.menu[world.menu_start[user] : world.menu_start[user + 1]]
        trial = agent.choose(user, menu[(world.arrival[menu] <= now) & ~seen[user, menu]])
        item = trial.candidates[trial.place]
        seen[user, item] = world.once
        run.shown[now], run.expected[now] = item, world.reward[user, item]
        run.reward[now] = run.expected[now]
        if world.noisy:
            run.reward[now] = came.luck[now] < run.expected[now]
        pending.append(trial)
        if now >= delay:
            agent.learn(pending.popleft(), float(run.reward[now - delay]))
    return run


class VowpalWabbit:
    """Contextual bandit with action features: the user's cluster weights crossed with the item's id.

    Examples are parsed once and used again, which makes a decision some fifty times faster than with text.
    """

    def __init__(self, arguments: str, world: Environment, seed: int) -> None:
        from vowpalwabbit import LabelType, Workspace

        self._bandit = LabelType.CONTEXTUAL_BANDIT
        self._vw = Workspace(f"--cb_explore_adf -q uj --quiet --random_seed {seed} {arguments}")
        self._rng = np.random.default_rng(seed)
        self._users = self._parse(
            [
                "shared |u " + " ".join(f"c{c}:{w:.6f}" for c, w in zip(clusters, weights, strict=True))
                for clusters, weights in zip(world.clusters, world.weights, strict=True)
            ]
        )
        self._items = self._parse([f"|j i{item}" for item in range(len(world.arrival))])

    def choose(self, user: int, candidates: Int64) -> Trial:
        """Draws from the library's own distribution."""
        chances = np.array(self._vw.predict([self._users[user], *(self._items[item] for item in candidates)]))
        place = min(int(np.searchsorted(chances.cumsum(), self._rng.random())), len(candidates) - 1)
        return Trial(user, candidates, place, float(chances[place]))

    def learn(self, trial: Trial, reward: float) -> None:
        """Cost is the negative reward."""
        examples = [self._users[trial.user], *(self._items[item] for item in trial.candidates)]
        labelled = self._parse([f"0:{-reward}:{trial.probability} |j i{trial.candidates[trial.place]}"])
        examples[1 + trial.place] = labelled[0]
        self._vw.learn(examples)
        self._vw.finish_example(labelled)

    def _parse(self, lines: list[str]) -> list[Any]:
        # One at a time: several shared examples in a row are no decision.
        return [self._vw.parse(line, self._bandit)[0] for line in lines]


class Mabwiser:
    """LinUCB with one ridge regression for each item, on the dense vector of cluster weights."""

    def __init__(self, parameters: Float64, world: Environment, seed: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self._context = np.zeros((len(world.clusters), world.cluster_count))
        np.put_along_axis(self._context, world.clusters, world.weights, axis=1)
        policy = LearningPolicy.LinUCB(alpha=parameters[0], l2_lambda=parameters[1])
        self._mab = MAB(list(range(len(world.arrival))), policy, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._learn = self._mab.fit

    def choose(self, user: int, candidates: Int64) -> Trial:
        """The highest upper bound, one of them at random; anything before the first feedback."""
        values = np.zeros(len(candidates))
        if self._learn != self._mab.fit:
            expected = self._mab.predict_expectations(self._context[user : user + 1])
            values = np.array([expected[item] for item in candidates])
        place = int(self._rng.choice(np.flatnonzero(values == values.max())))
        return Trial(user, candidates, place, 1.0)

    def learn(self, trial: Trial, reward: float) -> None:
        """One row."""
        self._learn([int(trial.candidates[trial.place])], [reward], self._context[trial.user : trial.user + 1])
        self._learn = self._mab.partial_fit
