"""What a training that goes on from a champion's weights begins as."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.contracts.errors import ReleaseRefused
from offline_training.progress import silent
from offline_training.ranking.model import Form, Ranker
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.training import fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from offline_training.train_models import State, train_models
from offline_training.training_data import TrainingData, read_training_data
from offline_training.warm_start import carried_towers
from tests.tiny_sets import write_sets

SETTINGS = TrainingSettings(
    dimensions=8, history_length=6, epochs=6, ranker_epochs=1, batch_size=64, learning_rate=1e-2, list_length=0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return read_training_data(write_sets(tmp_path_factory.mktemp("sets")), SETTINGS)


@pytest.fixture(scope="module")
def champion(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    """The states that a training from nothing keeps."""
    kept: dict[str, State] = {}

    def keep(name: str, make: Callable[[], State]) -> State:
        kept[name] = make()
        return kept[name]

    train_models(data, tmp_path_factory.mktemp("checkpoints"), SETTINGS, silent, keep)
    return kept


def other_order(catalogue: Catalogue) -> Catalogue:
    """The items in reverse, the first of them by another id."""
    items = ["new", *catalogue.items[-2::-1]]
    return Catalogue(
        items, {item: place for place, item in enumerate(items)}, catalogue.tokens[::-1].copy(), catalogue.features
    )


def carried(champion: dict[str, State], theirs: Catalogue, ours: Catalogue) -> TwoTower:
    model = TwoTower(ours.tokens, SETTINGS).eval()
    model.load_state_dict(carried_towers(champion["towers"]["base"], theirs, ours, SETTINGS))
    return model


def test_items_are_known_by_their_names_and_new_ones_by_their_content(
    data: TrainingData, champion: dict[str, State]
) -> None:
    before = carried(champion, data.catalogue, data.catalogue)
    after = carried(champion, data.catalogue, other_order(data.catalogue))
    old, new = before.item_vectors()[:, :-1], after.item_vectors()[:, :-1]
    np.testing.assert_allclose(new[1:], old[-2::-1], atol=1e-6)
    np.testing.assert_allclose(new[0], after.item_vectors(content_only=True)[0, :-1], atol=1e-6)
    assert np.abs(old - before.item_vectors(content_only=True)[:, :-1]).max() > 1e-3, "ids had been learnt"


def test_what_the_champion_did_not_train_on_begins_as_its_content(
    data: TrainingData, champion: dict[str, State]
) -> None:
    base = dict(champion["towers"]["base"])
    base["ids"] = base["ids"].clone()
    base["ids"][3] = 0  # the third item did not occur
    model = carried({"towers": {"base": base}}, data.catalogue, data.catalogue)
    alike = np.isclose(model.item_vectors(), model.item_vectors(content_only=True), atol=1e-6).all(axis=1)
    assert np.flatnonzero(alike).tolist() == [2]


def test_trust_is_fitted_anew(data: TrainingData, champion: dict[str, State]) -> None:
    base = champion["towers"]["base"] | {"user_tower.trust": torch.tensor(7.0)}
    assert carried({"towers": {"base": base}}, data.catalogue, data.catalogue).user_tower.trust == 1


def test_it_begins_where_the_champion_was(data: TrainingData, champion: dict[str, State]) -> None:
    start = carried_towers(champion["towers"]["base"], data.catalogue, data.catalogue, SETTINGS)
    before = data.sequences.before(data.validation_time)
    settings = SETTINGS.model_copy(update={"champion_epochs": 2})
    scratch = champion["towers"]["losses"]
    warm = fit_two_tower(data.catalogue, data.sequences, before, settings, silent, start=start).losses
    assert (len(scratch), len(warm)) == (7, 3)  # the passes, and the one that leans to the newest events
    assert warm[0] < scratch[1]


def test_a_training_of_all_models_goes_on(data: TrainingData, champion: dict[str, State], tmp_path: Path) -> None:
    """The champion's ranker keeps its form, whatever would win, and its metrics are of held-back users all the same."""
    towers = carried_towers(champion["towers"]["base"], data.catalogue, data.catalogue, SETTINGS)
    crossed = champion["ranker"] | {"form": int(Form.CROSSED)}
    with torch.random.fork_rng(devices=[]):
        crossed["ranker"] = Ranker(SETTINGS.dimensions, Form.CROSSED).state_dict()
    start = {"towers": towers, "form": crossed["form"], "ranker": crossed["ranker"]}
    made = [train_models(data, tmp_path, SETTINGS, silent, start=start) for _ in range(2)]
    assert {one.metrics["ranker_form"] for one in made} == {Form.CROSSED}
    assert np.array_equal(made[0].two_tower.item_vectors(), made[1].two_tower.item_vectors())
    assert 0 < made[0].metrics["ranker_auc"] <= 1
    assert len(made[0].ranker.losses) == 1


def test_towers_of_another_form_are_refused(data: TrainingData, champion: dict[str, State]) -> None:
    for change in ({"dimensions": 16}, {"layers": 3}):
        with pytest.raises(ReleaseRefused, match=r"The champion's towers have another form .*--from scratch"):
            carried_towers(
                champion["towers"]["base"], data.catalogue, data.catalogue, SETTINGS.model_copy(update=change)
            )
