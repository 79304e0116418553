"""The towers learn, serve new items and unknown users, and come out of ONNX unchanged."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from feature_store.definitions import GAP_BUCKETS, ITEM_TOKENS, KIND_BUCKETS, RANKER_FEATURES, USER_TOKENS, token_ids
from offline_training.progress import silent
from offline_training.ranking.model import REWARD, Form, Ranker
from offline_training.release.export import export_ranker, export_towers
from offline_training.retrieval.dataset import profile_ids
from offline_training.retrieval.sequences import Histories
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained, train_models
from offline_training.training_data import read_training_data
from online_serving.towers import Towers


def test_users_are_near_the_items_of_their_taste(trained: Trained) -> None:
    vectors = trained.two_tower.item_vectors()
    sequences, everybody = trained.sequences, np.arange(len(trained.sequences.users))
    histories = sequences.histories(everybody, np.diff(sequences.start), trained.two_tower.history_length)
    people = trained.two_tower.user_vectors(vectors, histories, sequences.profile)
    drama = np.array([item.startswith("drama") for item in trained.catalogue.items])
    likes_drama = np.array([int(user[-2:]) % 2 == 0 for user in sequences.users])
    affinity = people @ vectors.T
    assert _above(affinity[likes_drama][:, drama], affinity[likes_drama][:, ~drama]) > 0.99
    assert _above(affinity[~likes_drama][:, ~drama], affinity[~likes_drama][:, drama]) > 0.99
    assert trained.losses[-1] < trained.losses[0]


def _above(these: NDArray[np.float32], those: NDArray[np.float32]) -> float:
    """The share of pairs in which one of these is above one of those, in the same row."""
    return float((these[:, :, None] > those[:, None, :]).mean())


def test_a_new_item_is_placed_by_its_content(trained: Trained) -> None:
    tokens = torch.from_numpy(token_ids(["category=horror", "title=never seen"], ITEM_TOKENS)[None])
    with torch.no_grad():
        new = trained.two_tower.item_tower(torch.zeros(1, dtype=torch.int64), tokens).numpy()[0]
    similarity = trained.two_tower.item_vectors() @ new
    horror = np.array([item.startswith("horror") for item in trained.catalogue.items])
    assert _above(similarity[None, horror], similarity[None, ~horror]) > 0.99


def test_somebody_without_history_is_placed_by_their_profile(trained: Trained) -> None:
    vectors = trained.two_tower.item_vectors()
    nothing = np.zeros((2, trained.two_tower.history_length), dtype=np.int64)
    histories = Histories(nothing, nothing, nothing, np.zeros(2, np.int64), nothing > 0)
    people = trained.two_tower.user_vectors(vectors, histories, profile_ids([["group=horror"], []]))
    assert np.linalg.norm(people[:, :-1], axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    horror = np.array([item.startswith("horror") for item in trained.catalogue.items])
    affinity = people[0] @ vectors.T
    assert affinity[horror].mean() > affinity[~horror].mean()


def test_the_same_seed_gives_the_same_models(
    trained: Trained, sets: Path, settings: TrainingSettings, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    again = train_models(read_training_data(sets, settings), tmp_path, settings, silent)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator is left alone"
    assert np.array_equal(again.two_tower.item_vectors(), trained.two_tower.item_vectors())
    assert again.metrics == trained.metrics
    features = torch.randn(5, len(RANKER_FEATURES) + settings.dimensions, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.ranker.ranker(features), trained.ranker.ranker(features))


def test_items_that_never_occurred_have_no_id(settings: TrainingSettings) -> None:
    tokens = np.tile(token_ids(["a=b"], ITEM_TOKENS), (3, 1))
    model = TwoTower(tokens, settings)
    model.ids[2] = 0
    vectors, content = model.item_vectors(), model.item_vectors(content_only=True)
    assert np.array_equal(vectors[1], content[1])
    assert not np.array_equal(vectors[0], content[0])


@pytest.mark.parametrize("batch", [1, 7])
def test_onnx_equals_pytorch(trained: Trained, settings: TrainingSettings, tmp_path: Path, batch: int) -> None:
    model, d, length = trained.two_tower, settings.dimensions, settings.history_length
    export_towers(model, tmp_path)
    export_ranker(trained.ranker.ranker, d, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["item_tower.onnx", "ranker.onnx", "user_tower.onnx"]
    for path in tmp_path.iterdir():
        onnx.checker.check_model(onnx.load(path))
    towers, random = Towers(tmp_path), torch.Generator().manual_seed(batch)

    count = torch.arange(batch) % (length + 1)  # the first history is empty
    history = torch.nn.functional.normalize(torch.randn(batch, length, d, generator=random), dim=2)
    kinds = torch.randint(0, KIND_BUCKETS + 1, (batch, length), generator=random)
    gaps = torch.randint(0, GAP_BUCKETS, (batch, length), generator=random)
    tokens = torch.randint(0, 100, (batch, USER_TOKENS), generator=random)
    tokens[0] = 0
    content = torch.randint(0, 8_000, (batch, ITEM_TOKENS), generator=random)
    features = torch.randn(batch, len(RANKER_FEATURES) + d, generator=random)
    with torch.no_grad():
        users = model.user_tower(history, kinds, gaps, count, tokens).numpy()
        items = model.item_tower(torch.zeros(batch, dtype=torch.int64), content).numpy()
        probabilities = trained.ranker.ranker(features).numpy()
    served = towers.user_vectors(history.numpy(), kinds.numpy(), gaps.numpy(), count.numpy(), tokens.numpy())
    assert served == pytest.approx(users, abs=1e-5)
    for row, read in enumerate(count.tolist()):  # alone, and as short as it is
        alone, events = slice(row, row + 1), slice(max(read, 1))
        own = history[alone, events].clone()
        own[:, read:] = 0
        one = towers.user_vectors(
            own.numpy(), kinds[alone, events].numpy(), gaps[alone, events].numpy(), count[alone].numpy(),
            tokens[alone].numpy(),
        )  # fmt: skip
        assert one[0] == pytest.approx(users[row], abs=1e-5)
    assert towers.item_vectors(content.numpy()) == pytest.approx(items, abs=1e-5)
    assert towers.predict(features.numpy()) == pytest.approx(probabilities, abs=1e-5)


def test_the_last_block_for_one_place_is_that_place_of_all(settings: TrainingSettings) -> None:
    random = torch.Generator().manual_seed(0)
    tower = TwoTower(np.zeros((1, ITEM_TOKENS), np.int64), settings).user_tower.eval()
    length, d = settings.history_length, settings.dimensions
    count = torch.arange(length + 1)
    history = torch.randn(len(count), length, d, generator=random)
    kinds = torch.randint(0, KIND_BUCKETS + 1, (len(count), length), generator=random)
    gaps = torch.randint(0, GAP_BUCKETS, (len(count), length), generator=random)
    tokens = torch.randint(0, 100, (len(count), USER_TOKENS), generator=random)
    with torch.no_grad():
        for parameter in tower.parameters():  # far from the small numbers that training begins with
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
        states = tower.states(history, kinds, gaps, tokens)
        users = tower(history, kinds, gaps, count, tokens)
    torch.testing.assert_close(users, states[torch.arange(len(count)), count], rtol=1e-4, atol=1e-5)


def test_calibration_travels_into_the_exported_ranker(settings: TrainingSettings, tmp_path: Path) -> None:
    ranker = Ranker(settings.dimensions, Form.PRODUCTS)
    features = torch.randn(4, len(RANKER_FEATURES) + settings.dimensions, generator=torch.Generator().manual_seed(0))
    ranker.standardise(features)
    ranker.slope.fill_(2.0)
    ranker.intercept.fill_(-1.0)
    ranker.eval()
    export_towers(TwoTower(np.zeros((1, ITEM_TOKENS), np.int64), settings), tmp_path)
    export_ranker(ranker, settings.dimensions, tmp_path)
    with torch.no_grad():
        expected = torch.sigmoid(2 * ranker.logits(features)[:, REWARD] - 1).numpy()
    assert Towers(tmp_path).predict(features.numpy()) == pytest.approx(expected, abs=1e-5)


def test_the_item_tower_of_a_release_does_not_grow_with_the_catalogue(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    sizes = []
    for items in (1, 1_000):
        export_towers(TwoTower(np.zeros((items, ITEM_TOKENS), np.int64), settings), tmp_path)
        sizes.append((tmp_path / "item_tower.onnx").stat().st_size)
    assert sizes[0] == sizes[1]
