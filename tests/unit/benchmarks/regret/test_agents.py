"""Other libraries in the loop: they are asked and told what the policies of our own are."""

import numpy as np
import pytest

from benchmarks.regret import policies
from benchmarks.regret.agents import Mabwiser, Trial, VowpalWabbit, play_agent
from benchmarks.regret.loop import play, visits
from benchmarks.regret.policies import learn, new_state, ridge_estimate
from benchmarks.regret.world import Environment
from feature_store.arrays import Int64


class Greedy:
    """By the offline prediction, and remembers what it was told."""

    def __init__(self, world: Environment) -> None:
        self.world = world
        self.told: list[tuple[int, int, float]] = []

    def choose(self, user: int, candidates: Int64) -> Trial:
        return Trial(user, candidates, int(np.argmax(self.world.predicted[user, candidates])), 1.0)

    def learn(self, trial: Trial, reward: float) -> None:
        self.told.append((trial.user, int(trial.candidates[trial.place]), reward))


@pytest.mark.parametrize("once", [False, True])
def test_an_agent_lives_in_the_same_loop(once: bool, world: Environment) -> None:
    """Candidates, luck, delay and seen items are those of the compiled loop."""
    rounds = 15 if once else 200  # nobody runs out of items
    world = world._replace(once=once)
    came = visits(world, rounds, seed=1)
    parameters = np.zeros(3)
    wanted = play(policies.OFFLINE, parameters, new_state(policies.OFFLINE, parameters + 1, world), world, came, 3, 0)
    greedy = Greedy(world)
    run = play_agent(greedy, world, came, 3)
    assert np.array_equal(run.shown, wanted.shown)
    assert np.array_equal(run.reward, wanted.reward)
    assert np.array_equal(run.expected, wanted.expected)
    told = list(zip(came.user.tolist(), run.shown.tolist(), run.reward.tolist(), strict=True))
    assert greedy.told == told[:-3]
    if once:
        assert len({(user, item) for user, item, _ in told}) == rounds


def test_vowpal_wabbit_decides_as_with_text(world: Environment) -> None:
    workspace = pytest.importorskip("vowpalwabbit").Workspace
    agent = VowpalWabbit("--squarecb", world, seed=0)
    plain = workspace("--cb_explore_adf -q uj --quiet --random_seed 0 --squarecb")
    rng = np.random.default_rng(0)
    candidates = np.arange(6)
    for _ in range(100):
        user = int(rng.integers(5))
        pairs = zip(world.clusters[user], world.weights[user], strict=True)
        lines = ["shared |u " + " ".join(f"c{c}:{w:.6f}" for c, w in pairs), *(f"|j i{j}" for j in range(6))]
        wanted = plain.predict(lines)
        trial = agent.choose(user, candidates)
        assert trial.probability == pytest.approx(wanted[trial.place], abs=1e-5)
        reward = float(rng.random() < world.reward[user, trial.place])
        lines[1 + trial.place] = f"0:{-reward}:{trial.probability} {lines[1 + trial.place]}"
        plain.learn(lines)
        agent.learn(trial, reward)


@pytest.mark.filterwarnings("ignore")  # the library's, not ours
def test_mabwiser_is_the_linucb_of_our_own(world: Environment) -> None:
    pytest.importorskip("mabwiser")
    parameters = np.array([0.7, 1.0])
    agent = Mabwiser(parameters, world, seed=0)
    state = new_state(policies.LINUCB, parameters, world)
    rng = np.random.default_rng(0)
    candidates = np.arange(6)
    for step in range(60):
        user, item = int(rng.integers(5)), int(step % 6)
        agent.learn(Trial(user, candidates, item, 1.0), float(step % 2))
        learn(policies.LINUCB, state, world, user, item, float(step % 2))
    for user in range(5):
        estimates = [ridge_estimate(state, j, world.clusters[user], world.weights[user]) for j in range(6)]
        ours = [mean + 0.7 * np.sqrt(variance) for mean, variance in estimates]
        assert agent.choose(user, candidates).place == int(np.argmax(ours))
