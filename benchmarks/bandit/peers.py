"""The libraries that people would use instead, each asked in the cheapest way it offers."""

import numpy as np

from benchmarks.bandit.world import ACTIVE_CLUSTERS, Choice
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Graph

try:
    from mabwiser.mab import MAB, LearningPolicy
    from vowpalwabbit import Workspace
except ImportError as error:
    raise InvalidInput(
        f"The bench compares with {error.name}, which is not installed: pip install 'matchloop[bench]'"
    ) from error

_VW = "--cb_explore_adf --squarecb --quiet -q UI"
_LEARNT_FROM = 20  # shown items of a decision that feedback comes for


class VowpalWabbit:
    """SquareCB over action-dependent features: clusters and items interact. Examples are text, written beforehand."""

    def __init__(self, graph: Graph, choices: list[Choice]) -> None:
        self._model = Workspace(_VW)
        self._examples = [self._example(graph, choice, choice.candidates) for choice in choices]
        self._labelled = [
            self._example(graph, choice, choice.candidates[:_LEARNT_FROM], "0:-1:0.05 ") for choice in choices
        ]

    def decide(self, count: int) -> int:
        """The probabilities of all candidates, for the first `count` choices."""
        for example in self._examples[:count]:
            self._model.predict(example)
        return count

    def learn(self, count: int) -> int:
        """Learns from one reward in each of the first `count` choices."""
        for example in self._labelled[:count]:
            self._model.learn(example)
        return count

    @staticmethod
    def _example(
        graph: Graph, choice: Choice, candidates: np.ndarray[tuple[int], np.dtype[np.int64]], label: str = ""
    ) -> str:
        context = " ".join(f"c{c}:{w:.6f}" for c, w in zip(choice.clusters, choice.weights, strict=True))
        actions = [f"|I {name}" for name in graph.ids(candidates.tolist())]
        return "\n".join([f"shared |U {context}", label + actions[0], *actions[1:]])


class MabWiser:
    """LinUCB for each arm. It has no sparse contexts and keeps a dense matrix for each arm, so it gets the arms and
    the active clusters of one choice only."""

    def __init__(self, choice: Choice, rng: np.random.Generator) -> None:
        arms = choice.candidates.tolist()
        self._model = MAB(arms, LearningPolicy.LinUCB(alpha=0.3, l2_lambda=5.0))
        self._contexts = rng.dirichlet(np.full(ACTIVE_CLUSTERS, 5.0), 1000)
        self._arms = rng.choice(choice.candidates, 1000)
        self._rewards = rng.integers(0, 2, 1000)
        self._model.fit(self._arms, self._rewards, self._contexts)

    def decide(self, count: int) -> int:
        """The estimates of all arms, for `count` contexts, one at a time."""
        for i in range(count):
            self._model.predict_expectations(self._contexts[i : i + 1])
        return count

    def learn(self, count: int) -> int:
        """Learns from `count` rewards, one at a time."""
        for i in range(count):
            part = slice(i, i + 1)
            self._model.partial_fit(self._arms[part], self._rewards[part], self._contexts[part])
        return count
