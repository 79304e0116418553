"""From estimates to a slate: the last stage, the only random one. Nothing reorders after it."""

import numpy as np

from feature_store.contracts.experiments import BanditMode
from online_serving.pipeline.request import Float64, Int64
from streaming.bandit.diag_linucb import Estimate, Table, score
from streaming.bandit.exploration import Slate, choose_slate
from streaming.settings import BanditSettings


def estimate(
    settings: BanditSettings,
    mode: BanditMode,
    clusters: Int64,
    weights: Float64,
    candidates: Int64,
    predicted: Float64,
    table: Table,
) -> Estimate:
    """The policy's view of the candidates: the bandit's, or the offline prediction where the bandit is off."""
    if mode is BanditMode.OFF:
        nothing = np.zeros(len(candidates))
        return Estimate(predicted, nothing, np.zeros(len(candidates), dtype=np.uint64))
    return score(settings, clusters, weights, candidates, predicted, table)


def draw(settings: BanditSettings, mode: BanditMode, view: Estimate, size: int, rng: np.random.Generator) -> Slate:
    """Fills the slate; only the explore mode draws at random (and greedy between equals)."""
    share = settings.explore_share if mode is BanditMode.EXPLORE else 0.0
    return choose_slate(view.mean, view.bonus, size, settings.explore_top_k, share, rng)
