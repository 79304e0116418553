"""The weights of a release that serves, as a training that goes on from them begins.

Only what knows nothing of the new validation window may be gone on from: the towers as they were before their last
pass, which knew the window of their own training only, and it lies before this one. The optimizer begins afresh.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_store.contracts.errors import ReleaseRefused
from offline_training.data.summary import TrainingSetSummary
from offline_training.retrieval.dataset import Catalogue, read_items
from offline_training.retrieval.two_tower import TwoTower
from offline_training.runs.run import Run
from offline_training.runs.runs import SETS, run_of_release
from offline_training.settings import TrainingSettings
from offline_training.training_data import TrainingData

State = dict[str, Any]  # as in train_models

_IDS, _OF_ITEMS = "item_tower.ids.weight", ("tokens", "ids", "item_tower.popularity")
_FITTED_LATER = "user_tower.trust"


def weights_of(runs: Path, release: str) -> Run:
    """The run that made a release. Raises ReleaseRefused if its weights are not there."""
    run = run_of_release(runs, release)
    if run is None or not all((run.folder / f"{name}.pt").is_file() for name in ("towers", "ranker")):
        raise ReleaseRefused(
            f"The weights of release {release} are not in {runs}: it was trained elsewhere, or its run was removed. "
            "Train without them once: `matchloop retrain --from scratch`."
        )
    return run


def warm_start(champion: Run, data: TrainingData, settings: TrainingSettings) -> State:
    """`towers` for TwoTower.load_state_dict, and `form` and `ranker` of the ranker.

    Raises ReleaseRefused if the models have another size than the settings ask for, or the champion knows the outcomes
    of the validation window.
    """
    then = TrainingSetSummary.load(champion.folder / SETS).validation_time
    if then > data.validation_time:
        raise ReleaseRefused(
            f"Run {champion.manifest.id} was trained on events up to {then} ms, and the validation window of this one "
            f"begins at {data.validation_time} ms: it knows the answers. `matchloop retrain --from scratch` does not."
        )
    towers, ranker = (torch.load(champion.folder / f"{name}.pt", weights_only=True) for name in ("towers", "ranker"))
    theirs = read_items(champion.folder / SETS)
    return {
        "towers": carried_towers(towers["base"], theirs, data.catalogue, settings),
        "form": ranker["form"],
        "ranker": ranker["ranker"],
    }


def carried_towers(
    state: Mapping[str, torch.Tensor], theirs: Catalogue, ours: Catalogue, settings: TrainingSettings
) -> dict[str, torch.Tensor]:
    """The state of towers over another catalogue: items of the same id keep what was learnt of them, and whatever
    training did not know begins as what content alone says. Raises ReleaseRefused if another tensor has another
    shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        found = TwoTower(ours.tokens, settings).state_dict()
    for name, fresh in found.items():
        if name in (*_OF_ITEMS, _IDS, _FITTED_LATER):
            continue
        if name not in state or state[name].shape != fresh.shape:
            raise ReleaseRefused(
                f"The champion's towers have another form ({name}): training.dimensions, layers, heads or the features "
                "have changed since. Train from nothing once: `matchloop retrain --from scratch`."
            )
        found[name] = state[name].clone()
    number = {item: place for place, item in enumerate(theirs.items)}
    place = torch.tensor([number.get(item, -1) + 1 for item in ours.items], dtype=torch.int64)
    rows = state["ids"][place]  # 0, the row of the unknown, for whatever was not trained on
    found[_IDS] = torch.cat([state[_IDS][:1], state[_IDS][rows]])
    return found
