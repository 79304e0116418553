"""`matchloop bench regret`: the bandit against what people would use instead, in closed loops with known rewards.

Every policy shows one item a round, the one of its highest upper bound (or draw): the product's explore_top_k and
explore_share, which spread exploration over slates, are the same as none here, for everybody. Peers are tuned for each
scenario; ours runs at its shipped default.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.regret.cost import costs
from benchmarks.regret.figures import goals, report
from benchmarks.regret.movielens import movielens
from benchmarks.regret.plot import draw
from benchmarks.regret.scenarios import scenarios
from benchmarks.regret.tournament import tournament
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from offline_training.progress import Progress, section


def run(
    data: Path | None, seed: int, progress: Progress, *, only: str | None, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds jester5k, upworthy-ab-tests and ml-1m. only: plays the scenarios whose name contains it.
    out: where the picture is written.

    Raises InvalidInput if data is missing, no scenario fits, or a library to compare with is not installed.
    """
    if data is None:
        raise InvalidInput("Bench 'regret' needs --data: the folder with jester5k, upworthy-ab-tests and ml-1m.")
    chosen = [scenario for scenario in scenarios() if only is None or only in scenario.name]
    if not chosen:
        raise InvalidInput(f"No scenario of bench 'regret' contains {only!r}; there is {scenarios()[0].name}, say.")
    about = {}
    with tempfile.TemporaryDirectory(prefix="matchloop-regret-") as scratch:
        sparse = Path(scratch) / "sparse.npz"
        if any(scenario.name.startswith("movielens/") for scenario in chosen):
            built = movielens(data, section(progress, 0.0, 0.1))
            built.save(sparse)
            about = built.figures
        played = tournament(chosen, data, sparse, seed, section(progress, 0.1, 0.95))
    progress(0.95, "measuring costs")
    widest = max(chosen, key=lambda scenario: len(scenario.contenders))
    parameters = {name: np.array(one.parameters) for name, one in played[widest.name].items()}
    cost = costs(widest, data, seed, parameters)
    results = {scenario.name: report(scenario, played[scenario.name]) for scenario in chosen}
    if out is not None:
        draw(results, out)
    return {"scenarios": results, "cost": cost, "movielens": about}, goals(results, cost)
