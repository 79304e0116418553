"""What a decision and an update cost, once the machine is warm."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numba
import numpy as np

from benchmarks.regret.agents import agent
from benchmarks.regret.loop import best, play, visits
from benchmarks.regret.policies import learn, new_state, score, serve
from benchmarks.regret.scenarios import Scenario
from benchmarks.regret.tournament import Parameters
from benchmarks.regret.world import ACTIVE_CLUSTERS, Environment, jester
from feature_store.arrays import Float64

_WARM_UP, _BATCH, _BATCHES = 5_000, 500, 41
_AGENT_BATCH, _AGENT_BATCHES = 20, 11


def costs(scenario: Scenario, data: Path, seed: int, parameters: Parameters) -> dict[str, dict[str, float]]:
    """Contender -> microseconds per decision among jester's 70 items, per update, and per update of one of its 5 edges:
    medians over short batches, after some thousand rounds. An update is what serving and feedback change."""
    world = jester(data, seed, _WARM_UP, binary=True, arriving=False)
    came = visits(world, _WARM_UP, seed)
    result = {}
    for contender in scenario.contenders:
        chosen = parameters[contender.name]
        if contender.kind is None:
            works = _agent(contender.name, chosen, world, seed)
            figures = [_median(work, _AGENT_BATCH, _AGENT_BATCHES) for work in works]
        else:
            state = new_state(contender.kind, chosen, world)
            play(contender.kind, chosen, state, world, came, 0, seed)
            everything = (contender.kind, chosen, state, world)
            figures = [_median(partial(work, *everything), _BATCH, _BATCHES) for work in (_decide, _update)]
        result[contender.name] = {
            "decision_us": figures[0],
            "update_us": figures[1],
            "edge_update_us": figures[1] / ACTIVE_CLUSTERS,
        }
    return result


@numba.njit  # not cached, see policies.score
def _decide(kind, parameters, state, world, count):  # type: ignore[no-untyped-def]  # numba infers it
    users, n = world.reward.shape
    candidates, predicted = np.arange(n), np.zeros(n)
    mean, bonus, masks = np.empty(n), np.empty(n), np.empty(n, np.uint64)
    total = 0
    for now in range(count):
        score(kind, parameters, state, world, now % users, now, candidates, predicted, mean, bonus, masks)
        total += best(mean, bonus)
    return total


@numba.njit
def _update(kind, parameters, state, world, count):  # type: ignore[no-untyped-def]  # noqa: ARG001
    users, n = world.reward.shape
    for now in range(count):
        serve(kind, state, world, now % users, now % n)
        learn(kind, state, world, now % users, now % n, 0.0)


def _agent(
    name: str, parameters: Float64, world: Environment, seed: int
) -> tuple[Callable[[int], object], Callable[[int], object]]:
    player = agent(name, parameters, world, seed)
    candidates = np.arange(world.reward.shape[1])
    trials = [player.choose(user, candidates) for user in range(_AGENT_BATCH)]

    def decide(count: int) -> None:
        for user in range(count):
            player.choose(user, candidates)

    def update(count: int) -> None:
        for trial in trials[:count]:
            player.learn(trial, 0.0)

    update(1)
    return decide, update


def _median(work: Callable[[int], object], batch: int, batches: int) -> float:
    """Microseconds for one."""
    work(1)
    seconds = []
    for _ in range(batches):
        started = time.perf_counter()
        work(batch)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) / batch * 1e6
