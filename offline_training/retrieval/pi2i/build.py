"""From the lists that Spark made to those that serve: cut at the knee, with a scorer to choose from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from feature_store.arrays import Float32
from offline_training.progress import Progress
from offline_training.retrieval.pi2i.lists import AT_END, AT_VALIDATION, MakeLists, hit_rates, knee
from offline_training.retrieval.pi2i.moments import Moments
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.pi2i.training import fit_scorer
from offline_training.settings import TrainingSettings
from online_serving.item_lists import ItemLists


@dataclass(frozen=True)
class PersonalLists:
    """items: the lists as of the end of training; metrics: `lists_length`, and `lists_hit_rate_at_T` by length."""

    items: ItemLists
    scorer: PairScorer
    metrics: dict[str, float]

    def state(self) -> dict[str, Any]:
        """All of it but the lists, as torch.load reads it with weights_only."""
        return {"scorer": self.scorer.state_dict(), "metrics": self.metrics}

    @classmethod
    def of(cls, state: Mapping[str, Any], make: MakeLists, settings: TrainingSettings) -> "PersonalLists | None":
        """What has this state, with the lists that it was fitted for; None if it is empty."""
        if not state:
            return None
        with torch.random.fork_rng(devices=[]):
            scorer = PairScorer(settings.dimensions).eval()
        scorer.load_state_dict(state["scorer"])
        return cls(make(AT_END, int(state["metrics"]["lists_length"])), scorer, state["metrics"])


def personal_lists(
    make: MakeLists, vectors: Float32, moments: Moments, settings: TrainingSettings, progress: Progress
) -> PersonalLists | None:
    """Fits the scorer on moments of the validation window, with the lists and the vectors (I, d) of before it: as it
    will serve, where the lists do not know either what comes next. None if lists are switched off or hold too little.
    """
    if not settings.list_length:
        return None
    then = make(AT_VALIDATION, settings.list_length)
    rates = hit_rates(then, moments)
    length = knee(rates)
    scorer = fit_scorer(then.cut(length), vectors, moments, settings.seed, progress)
    if scorer is None:
        return None
    metrics = {f"lists_hit_rate_at_{size}": rate for size, rate in rates.items()} | {"lists_length": float(length)}
    return PersonalLists(make(AT_END, length), scorer, metrics)
