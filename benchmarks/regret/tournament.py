"""Plays every contender on every scenario: tuned on some seeds, measured on others."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks.regret.agents import agent, play_agent
from benchmarks.regret.contenders import MABWISER, Contender
from benchmarks.regret.loop import Run, Visits, play, visits
from benchmarks.regret.policies import new_state
from benchmarks.regret.scenarios import MABWISER_ROUNDS, Scenario, worlds
from benchmarks.regret.world import Environment
from feature_store.arrays import Float64
from offline_training.progress import Progress, section
from streaming.settings import RewardSettings

SEEDS = 8
TUNING_SEEDS = 2  # other libraries: the first of them
CHECKPOINTS = 50
DISCOVERED = (1, 3, 5, 10, 30)
_FIRST_TUNING_SEED = 1_000
_POSITIVE = RewardSettings().positive
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Parameters = dict[str, Float64]  # by contender
Key = tuple[str, int]  # scenario, number of the seed
T = TypeVar("T")


class Score(NamedTuple):
    """How one policy did with one seed."""

    rounds: int
    reward: float  # mean expected reward of a round
    curve: list[float]  # the same up to each of CHECKPOINTS equal steps of the rounds played
    discovered: list[int]  # items with more than each of DISCOVERED positive rewards


class Played(NamedTuple):
    """One contender on one scenario."""

    parameters: list[float]
    tuning: list[tuple[list[float], float]]  # what was tried, and its mean reward
    scores: list[Score]  # by seed


def tournament(
    chosen: list[Scenario], data: Path, sparse: Path, seed: int, progress: Progress
) -> dict[str, dict[str, Played]]:
    """Scenario -> contender -> result, in as many processes as there are cores.

    Every peer is tuned by trying its grid on TUNING_SEEDS seeds (and campaigns) that it is not measured on. Seeds are
    the same for all contenders, and so is what chance brings.
    """
    first = 10_000 * seed
    longest = sorted(chosen, key=lambda scenario: -len(scenario.contenders))  # first, so that no process waits for one
    with _processes() as pool:
        tuning = {
            pool.submit(tune, scenario, data, sparse, first + _FIRST_TUNING_SEED + k, k == 0): (scenario.name, k)
            for k in range(TUNING_SEEDS)
            for scenario in longest
        }
        tried = _collect(tuning, section(progress, 0.0, 0.5), "tuning")
        rewards = {scenario.name: _means([tried[scenario.name, k] for k in range(TUNING_SEEDS)]) for scenario in chosen}
        best = {scenario.name: _best(scenario, rewards[scenario.name]) for scenario in chosen}
        measuring = {
            pool.submit(measure, scenario, data, sparse, first + k, best[scenario.name]): (scenario.name, k)
            for k in range(SEEDS)
            for scenario in longest
        }
        measured = _collect(measuring, section(progress, 0.5, 1.0), "measuring")
    return {
        scenario.name: {
            contender.name: Played(
                parameters=best[scenario.name][contender.name].tolist(),
                tuning=[
                    (parameters.tolist(), reward)
                    for parameters, reward in zip(
                        contender.candidates(scenario.spread),
                        rewards[scenario.name].get(contender.name, []),
                        strict=False,
                    )
                ],
                scores=[measured[scenario.name, k][contender.name] for k in range(SEEDS)],
            )
            for contender in scenario.contenders
        }
        for scenario in chosen
    }


def tune(scenario: Scenario, data: Path, sparse: Path, seed: int, everybody: bool) -> dict[str, list[float]]:
    """Mean reward of each member of each grid; everybody: other libraries too."""
    met = _met(scenario, data, sparse, seed, tuning=True)
    return {
        contender.name: [
            play_all(contender, parameters, scenario, met, seed).reward
            for parameters in contender.candidates(scenario.spread)
        ]
        for contender in scenario.contenders
        if len(contender.grid) > 1 and (contender.kind is not None or everybody)
    }


def measure(scenario: Scenario, data: Path, sparse: Path, seed: int, parameters: Parameters) -> dict[str, Score]:
    """The score of every contender."""
    met = _met(scenario, data, sparse, seed, tuning=False)
    return {
        contender.name: play_all(contender, parameters[contender.name], scenario, met, seed)
        for contender in scenario.contenders
    }


def play_all(
    contender: Contender, parameters: Float64, scenario: Scenario, met: list[tuple[Environment, Visits]], seed: int
) -> Score:
    """A contender's score over all worlds of a scenario, each from nothing."""
    runs = [_play(contender, parameters, scenario.delay, *one, seed) for one in met]
    expected = np.mean([run.expected for run in runs], axis=0)
    ends = np.arange(1, CHECKPOINTS + 1) * len(expected) // CHECKPOINTS
    positives = np.concatenate([np.bincount(run.shown[run.reward >= _POSITIVE]) for run in runs])
    return Score(
        rounds=len(expected),
        reward=float(expected.mean()),
        curve=(np.cumsum(expected)[ends - 1] / ends).tolist(),
        discovered=[int((positives > x).sum()) for x in DISCOVERED],
    )


def _play(contender: Contender, parameters: Float64, delay: int, world: Environment, came: Visits, seed: int) -> Run:
    if contender.kind is not None:
        state = new_state(contender.kind, parameters, world)
        return play(contender.kind, parameters, state, world, came, delay, seed)
    if contender.name == MABWISER:
        came = Visits(came.user[:MABWISER_ROUNDS], came.luck[:MABWISER_ROUNDS])
    return play_agent(agent(contender.name, parameters, world, seed), world, came, delay)


def _met(scenario: Scenario, data: Path, sparse: Path, seed: int, tuning: bool) -> list[tuple[Environment, Visits]]:
    found = worlds(scenario, data, sparse, seed, tuning)
    return [(world, visits(world, scenario.rounds, seed * 1_000 + k)) for k, world in enumerate(found)]


def _means(tried: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """By contender, over the seeds that it was tried on."""
    return {
        name: np.mean([rewards[name] for rewards in tried if name in rewards], axis=0).tolist() for name in tried[0]
    }


def _best(scenario: Scenario, rewards: dict[str, list[float]]) -> Parameters:
    return {
        contender.name: contender.candidates(scenario.spread)[int(np.argmax(rewards.get(contender.name, [0.0])))]
        for contender in scenario.contenders
    }


def _collect(submitted: dict["Future[T]", Key], progress: Progress, verb: str) -> dict[Key, T]:
    done = {}
    for future in as_completed(submitted):
        done[submitted[future]] = future.result()
        progress(len(done) / len(submitted), f"{verb}: {submitted[future][0]}")
    return done


@contextmanager
def _processes() -> Iterator[ProcessPoolExecutor]:
    """One process per core, each with one thread: small matrices are slower with more."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # libraries read it when they are loaded
    try:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        pool = ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
