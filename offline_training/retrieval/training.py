"""Fits the two-tower model: every event of a user is predicted from the events before it."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float32, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import DAY_MS
from offline_training.fitting import FittingTask, fit
from offline_training.progress import Progress, section
from offline_training.retrieval.cooccurrence import directions
from offline_training.retrieval.dataset import Catalogue, Impressions
from offline_training.retrieval.losses import (
    StreamingFrequency,
    corrected_in_batch_softmax,
    full_softmax,
    in_batch_softmax,
)
from offline_training.retrieval.popularity import (
    RECENT_DAYS,
    choose_days,
    popularity,
    unasked,
    without_silences,
)
from offline_training.retrieval.sequences import Sequences, Windows, batches, targets
from offline_training.retrieval.two_tower import TwoTower
from offline_training.retrieval.worth import Worth, expect_of_unknown, fit_worth, judge_shown
from offline_training.settings import Loss, TrainingSettings

FULL_SOFTMAX_UP_TO = 50_000  # items; beyond, embedding all of them at every step takes longer than the rest of it
BATCH_PLACES = 2_048  # places of one in-batch softmax
ID_DROPOUT = 0.1  # items embedded by content alone, so that content alone gives a sensible vector
PROFILE_DROPOUT = 0.1
WEIGHT_DECAY = 1e-2
BATCHES, MIN_BATCH = 60, 200  # of a pass, where there are events for more than the smallest batches
_WARM_PACE = 0.5  # of the learning rate, where training goes on from weights
NOTHING_SHOWN = Impressions.none()

Batch = tuple[torch.Tensor, ...]


class WindowBatches:
    """The batches of one pass: histories (item, kind, gap), profile; row, state, item, weight, and period of the
    targets."""

    def __init__(
        self,
        sequences: Sequences,
        windows: Windows,
        settings: TrainingSettings,
        weight: Float32,
        period: Int64,
        rng: np.random.Generator,
    ) -> None:
        self._sequences, self._weight, self._period = sequences, weight, period
        self._horizon, self._rng = settings.horizon, rng
        self._parts = list(batches(windows, settings.batch_size, rng))

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Batch]:
        sequences = self._sequences
        for part in self._parts:
            history = sequences.cut(part.first, part.end, int((part.end - part.first).max(initial=0)))
            wanted = targets(sequences, part, self._horizon, self._rng)
            user = np.searchsorted(sequences.start, part.first_target, side="right") - 1
            columns = (
                *(history.item, history.kind, history.gap, sequences.profile[user]),
                *(wanted.row, wanted.state, sequences.item[wanted.event]),
                *(self._weight[wanted.event], self._period[wanted.event]),
            )
            if len(wanted.row):
                yield tuple(torch.from_numpy(np.ascontiguousarray(column)) for column in columns)


class RetrievalTask(FittingTask):
    """The model with its loss. Batches are those of WindowBatches."""

    warm, cosine = 0.05, True

    share: torch.Tensor
    level: torch.Tensor

    def __init__(
        self, model: TwoTower, settings: TrainingSettings, rate: float, share: NDArray[np.float64], level: Float32
    ) -> None:
        """share (I,): each item's part of the interactions. level (I, P): Popularity.level."""
        super().__init__()
        self.model, self.settings, self.rate = model, settings, rate
        self.register_buffer("level", torch.from_numpy(level))
        self.register_buffer("share", torch.from_numpy(share).float())
        self.frequency = StreamingFrequency(len(share))
        self.loss = settings.loss
        if self.loss is Loss.AUTO:
            small = len(share) <= FULL_SOFTMAX_UP_TO
            self.loss = Loss.FULL_SOFTMAX if small else Loss.CORRECTED_IN_BATCH

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        history, kind, gap, profile, row, state, item, weight, period = batch
        profile = profile * (torch.rand(len(profile), 1, device=profile.device) >= PROFILE_DROPOUT)
        full = self.loss is Loss.FULL_SOFTMAX
        # In the roles of candidate and of history alike an item is embedded once.
        numbers = torch.arange(len(self.model.ids), device=item.device)
        if not full:
            numbers = torch.unique(torch.cat([item + 1, history.flatten(), item.new_zeros(1)]))
        ids = self.model.ids[numbers] * (torch.rand(len(numbers), device=item.device) >= ID_DROPOUT)
        taste = self.model.item_tower.taste(ids, self.model.tokens[numbers])
        past = taste.index_select(0, torch.searchsorted(numbers, history.flatten()))
        past = past.view(*history.shape, taste.shape[1])  # not -1: without a second event of anybody it is empty
        past = torch.nn.functional.pad(past * (history > 0).unsqueeze(2), (0, 1))
        states = self.model.user_tower.states(past, kind, gap, profile)[row, state]
        # How popular an item was depends on when: an axis for each period, of which a user looks along one.
        along = torch.nn.functional.one_hot(period, self.level.shape[1]) * states[:, -1:] * self.settings.temperature
        users = torch.cat([states[:, :-1], along], dim=1)
        vectors = torch.cat([taste, self.level[(numbers - 1).clamp(min=0)]], dim=1)
        if full:
            exact = users.float() / self.settings.temperature
            low = exact if self.trainer.precision == "32-true" else exact.bfloat16()
            return full_softmax(low, vectors[1:].float(), item, weight)
        losses = [
            self._in_batch(users[part], vectors[torch.searchsorted(numbers, item[part] + 1)], item[part], weight[part])
            for part in torch.split(torch.randperm(len(item), device=item.device), BATCH_PLACES)
        ]
        return torch.stack(losses).sum() / weight.sum()

    def _in_batch(
        self, users: torch.Tensor, items: torch.Tensor, number: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        temperature = self.settings.temperature
        if self.loss is Loss.IN_BATCH:
            return in_batch_softmax(users, items, number, self.frequency(number).log(), weight, temperature)
        return corrected_in_batch_softmax(users, items, number, self.share[number], weight, temperature)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        flat = [tensor for tensor in self.parameters() if tensor.ndim < 2]
        matrices = [tensor for tensor in self.parameters() if tensor.ndim >= 2]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": flat, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98))


@dataclass(frozen=True)
class Fitted:
    """model: trained on everything before the validation start, newest events last. base: its state before the pass
    that leans to the newest events, where stage 2 goes on. losses: the mean loss of each pass. recent_days: of the
    settings, or chosen."""

    model: TwoTower
    base: dict[str, torch.Tensor]
    losses: list[float]
    recent_days: float
    worth: Worth

    def state(self) -> dict[str, Any]:
        """All of it, as torch.load reads it with weights_only."""
        own = {"base": self.base, "losses": self.losses, "recent_days": self.recent_days, "worth": tuple(self.worth)}
        return {"model": self.model.state_dict()} | own

    @classmethod
    def of(cls, state: Mapping[str, Any], catalogue: Catalogue, settings: TrainingSettings) -> "Fitted":
        """What has this state; the catalogue and the settings are those that it was fitted with."""
        with torch.random.fork_rng(devices=[]):
            model = TwoTower(catalogue.tokens, settings).eval()
        model.load_state_dict(state["model"])
        return cls(
            *(model, state["base"], state["losses"], state.get("recent_days", RECENT_DAYS[0])),
            Worth(*state.get("worth", ())),
        )


def fit_two_tower(
    catalogue: Catalogue,
    sequences: Sequences,
    until: Int64,
    settings: TrainingSettings,
    progress: Progress,
    checkpoints: Path | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
    impressions: Impressions = NOTHING_SHOWN,
) -> Fitted:
    """Stage 1: `settings.epochs` passes over the first until[u] events of every user, from where items lie by who met
    them; with settings.drift then one that leans to the newest of them, and the trust in popularity is fitted to what
    came after them. start: a state of the model that knows nothing of what came after them; then it is
    `settings.champion_epochs` passes, at half the pace.

    checkpoints: a folder; a training of the same data with the same settings that was killed goes on from what it left
    there, and ends with the same model. impressions: what was shown until then. Raises InvalidInput if there is nothing
    to predict.
    """
    known = sequences.among_first(until)
    if not (known & sequences.positive).any():
        raise InvalidInput(
            "No positive interaction is left to train on. Import more, or check training.positive_value."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = TwoTower(catalogue.tokens, settings)
    epochs, pace = (settings.epochs, 1.0) if start is None else (settings.champion_epochs, _WARM_PACE)
    if start is not None:
        model.load_state_dict(start)
    else:
        model.item_tower.begin_at(directions(sequences, known, len(catalogue.items), settings.dimensions - 1))
    _mark_trained(model, sequences.item[known])
    share = epochs / (epochs + 1)
    everything = np.ones(len(sequences.item), np.float32)
    first, last = section(progress, 0.0, share), section(progress, share, 1.0)
    chosen = unasked(sequences, impressions)
    days = settings.recent_days or choose_days(sequences, known & chosen, len(catalogue.items))
    settings = settings.model_copy(update={"recent_days": days})
    folder = None if checkpoints is None else checkpoints / _fingerprint(catalogue, sequences, until, chosen, settings)
    losses = _train(model, sequences, until, chosen, everything, settings, epochs, pace, first, folder)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if settings.drift:
        losses += _newest_pass(model, sequences, until, chosen, settings, last)
    popular = np.unique(sequences.item[known & chosen])
    met = np.union1d(sequences.item[known], impressions.flat[1])
    worth = Worth()
    if settings.drift:
        worth = fit_worth(model, sequences, until, chosen, popular, met, settings)
        for tensor in (model.user_tower.trust, base["user_tower.trust"]):
            tensor.fill_(worth.popularity / worth.taste)
    expect_of_unknown(model, popular, met, worth)
    judge_shown(model, impressions, settings)
    return Fitted(model, base, losses, days, worth)


def finish_two_tower(
    fitted: Fitted,
    sequences: Sequences,
    settings: TrainingSettings,
    progress: Progress,
    impressions: Impressions = NOTHING_SHOWN,
) -> TwoTower:
    """Stage 2: from stage 1's base, the pass that leans to the newest events, now with the validation window among
    them, and with all impressions. Returns fitted.model, changed in place."""
    settings = settings.model_copy(update={"recent_days": fitted.recent_days})
    fitted.model.load_state_dict(fitted.base)
    _mark_trained(fitted.model, sequences.item)
    chosen = unasked(sequences, impressions)
    _newest_pass(fitted.model, sequences, np.diff(sequences.start), chosen, settings, progress)
    met = np.union1d(sequences.item, impressions.flat[1])
    expect_of_unknown(fitted.model, np.unique(sequences.item[chosen]), met, fitted.worth)
    judge_shown(fitted.model, impressions, settings)
    return fitted.model


def _fingerprint(
    catalogue: Catalogue, sequences: Sequences, until: Int64, chosen: Bool, settings: TrainingSettings
) -> str:
    """Names a training: another for other data or settings."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(repr(sequences.kinds).encode())
    columns = (sequences.start, sequences.item, sequences.kind, sequences.positive, sequences.time, sequences.visible)
    for column in (catalogue.tokens, *columns, sequences.profile, until, chosen):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def _mark_trained(model: TwoTower, items: Int64) -> None:
    """Items that occur get their own id; the others stay unknown, as a live item is, because their id was not
    trained."""
    items = np.unique(items)
    model.ids.zero_()
    model.ids[torch.from_numpy(items + 1)] = torch.from_numpy(items + 1)


def _newest_pass(
    model: TwoTower,
    sequences: Sequences,
    until: Int64,
    chosen: Bool,
    settings: TrainingSettings,
    progress: Progress,
) -> list[float]:
    """One pass in which, with settings.drift, an event counts exp(-age / (2 recent_days)).

    Taste drifts: on MovieLens-100K by time this raised recall@50 of the following weeks by a tenth, within the window
    and after it alike; a second pass took half of it back.
    """
    known = sequences.among_first(until)
    clock = without_silences(sequences.time, settings.recent_days)
    age = np.maximum(clock[known].max(initial=0) - clock, 0) / DAY_MS
    weight = np.exp(-age / (2 * settings.recent_days) * settings.drift).astype(np.float32)
    return _train(model, sequences, until, chosen, weight, settings, 1, 0.5, progress, None)


def _train(
    model: TwoTower,
    sequences: Sequences,
    until: Int64,
    chosen: Bool,
    weight: Float32,
    settings: TrainingSettings,
    epochs: int,
    pace: float,
    progress: Progress,
    checkpoints: Path | None,
) -> list[float]:
    """chosen (n,): events that count for how popular items are."""
    items, known = len(model.tokens) - 1, sequences.among_first(until)
    size = int(np.clip(known.sum() // BATCHES, MIN_BATCH, settings.batch_size))
    settings = settings.model_copy(update={"batch_size": size})
    lately = popularity(sequences, known & chosen, items, settings)
    count = np.bincount(sequences.item, minlength=items)

    def make(epoch: int) -> WindowBatches:
        rng = np.random.default_rng((settings.seed, epoch))
        windows = sequences.windows(settings.history_length, until, rng)
        return WindowBatches(sequences, windows, settings, weight, lately.period, rng)

    task = RetrievalTask(model, settings, settings.learning_rate * pace, count / max(1, count.sum()), lately.level)
    model.train()
    losses = fit(
        task,
        make,
        epochs=epochs,
        seed=settings.seed,
        progress=progress,
        label="two towers",
        precision=settings.precision,
        accelerator=settings.accelerator,
        checkpoints=checkpoints,
    )
    model.item_tower.popularity[1:] = torch.from_numpy(lately.level_now)
    return losses
