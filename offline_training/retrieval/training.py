"""Fits the two-tower model by in-batch sampled softmax with logQ correction."""

from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from offline_training.fitting import fit
from offline_training.progress import Progress, section
from offline_training.retrieval.dataset import Catalogue, Examples, Int64
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings

ID_DROPOUT = 0.2  # items embedded by content alone, so that content alone gives a sensible vector
HISTORY_DROPOUT = 0.05  # users embedded by profile alone
PROFILE_DROPOUT = 0.1
MS_PER_DAY = 86_400_000
WEIGHT_DECAY = 1e-5


def in_batch_softmax(
    user: torch.Tensor, item: torch.Tensor, number: torch.Tensor, log_q: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean loss of B positives against the other items of their batch (Yi et al., RecSys 2019, Eqs. 3-5).

    user, item: (B, d) unit vectors, row i a positive pair. number: (B,) item numbers: a duplicate of the positive is no
    negative and is masked. log_q: (B,) log probability that a batch place holds the item; subtracting it from the
    logits makes the in-batch softmax estimate the softmax over the whole catalogue.
    """
    logits = user @ item.T / temperature - log_q
    duplicate = (number.unsqueeze(0) == number.unsqueeze(1)) & ~torch.eye(len(number), dtype=torch.bool)
    logits = logits.masked_fill(duplicate, -torch.inf)
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(number)))


class RetrievalTask(pl.LightningModule):
    """Batches are (item number, history numbers plus one (B, L), profile tokens (B, T))."""

    log_q: torch.Tensor

    def __init__(self, model: TwoTower, log_q: NDArray[np.float32], settings: TrainingSettings, rate: float) -> None:
        super().__init__()
        self.model, self.settings, self.rate = model, settings, rate
        self.register_buffer("log_q", torch.from_numpy(log_q))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        item, history, profile = batch
        history = history * (torch.rand(len(item), 1) >= HISTORY_DROPOUT)
        profile = profile * (torch.rand(len(item), 1) >= PROFILE_DROPOUT)
        # Each distinct item of the batch is embedded once, in the role of candidate and of history alike.
        numbers, place = torch.unique(torch.cat([item + 1, history.flatten()]), return_inverse=True)
        ids = self.model.ids[numbers] * (torch.rand(len(numbers)) >= ID_DROPOUT)
        vectors = self.model.item_tower(ids, self.model.tokens[numbers])
        positive, past = place[: len(item)], place[len(item) :].view_as(history)
        mask = (history > 0).to(vectors.dtype)
        # index_select's gradient is several times faster than that of advanced indexing.
        past_vectors = vectors.index_select(0, past.flatten()).view(*past.shape, -1) * mask.unsqueeze(2)
        user = self.model.user_tower(past_vectors, mask, profile)
        return in_batch_softmax(user, vectors[positive], item, self.log_q[item], self.settings.temperature)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate, weight_decay=WEIGHT_DECAY, foreach=True)


@dataclass(frozen=True)
class Fitted:
    """model: trained on everything before the validation start, newest examples last. base: its state before the pass
    over the newest examples, where stage 2 goes on. losses: the mean loss of each epoch."""

    model: TwoTower
    base: dict[str, torch.Tensor]
    losses: list[float]


def fit_two_tower(catalogue: Catalogue, examples: Examples, settings: TrainingSettings, progress: Progress) -> Fitted:
    """Stage 1: `settings.epochs` passes over the examples before the validation start in random order, then one over a
    sample that leans to the newest of them. With fewer than two examples before the start, all examples are taken."""
    rows = np.flatnonzero(~examples.validation)
    rows = rows if len(rows) >= 2 else np.arange(len(examples.item))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TwoTower(catalogue.tokens, settings.history_length, settings.dimensions)
    _mark_trained(model, examples.item[rows])
    share = settings.epochs / (settings.epochs + 1)
    losses = _train(
        model, examples, rows, settings, settings.epochs, settings.learning_rate, section(progress, 0.0, share)
    )
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses += _newest_pass(model, examples, rows, settings, section(progress, share, 1.0))
    return Fitted(model, base, losses)


def finish_two_tower(fitted: Fitted, examples: Examples, settings: TrainingSettings, progress: Progress) -> TwoTower:
    """Stage 2: from stage 1's base, the pass that leans to the newest examples, now with the validation window among
    them. Returns fitted.model, changed in place."""
    fitted.model.load_state_dict(fitted.base)
    _mark_trained(fitted.model, examples.item)
    _newest_pass(fitted.model, examples, np.arange(len(examples.item)), settings, progress)
    return fitted.model


def _mark_trained(model: TwoTower, items: Int64) -> None:
    """Items that occur get their own id; the others stay unknown, as a live item is, because their id was not
    trained."""
    items = np.unique(items)
    model.ids.zero_()
    model.ids[torch.from_numpy(items + 1)] = torch.from_numpy(items + 1)


def _newest_pass(
    model: TwoTower, examples: Examples, rows: Int64, settings: TrainingSettings, progress: Progress
) -> list[float]:
    """One pass over as many examples, drawn with weight exp(-age / (2 recent_days)).

    Taste drifts: on MovieLens-100K by time this raised recall@50 of the following weeks by a tenth, within the window
    and after it alike; a second pass took half of it back.
    """
    age = (examples.time[rows].max() - examples.time[rows]) / MS_PER_DAY
    weight = np.exp(-age / (2 * settings.recent_days))
    drawn = np.random.default_rng(settings.seed).choice(rows, len(rows), p=weight / weight.sum())
    return _train(model, examples, drawn, settings, 1, settings.learning_rate / 2, progress)


def _train(
    model: TwoTower,
    examples: Examples,
    rows: Int64,
    settings: TrainingSettings,
    epochs: int,
    rate: float,
    progress: Progress,
) -> list[float]:
    item = examples.item[rows]
    # The whole training set is at hand, so q is counted instead of estimated from the stream (same paper, Alg. 2).
    count = np.bincount(item, minlength=len(model.tokens) - 1)
    log_q = np.log(np.maximum(count, 1) / len(item)).astype(np.float32)
    model.train()
    return fit(
        RetrievalTask(model, log_q, settings, rate),
        [torch.from_numpy(array[rows]) for array in (examples.item, examples.history, examples.profile)],
        batch_size=settings.batch_size,
        epochs=epochs,
        seed=settings.seed,
        progress=progress,
        label="two towers",
    )
