"""One quiet, seeded Lightning loop for every model, which goes on where it was killed."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from offline_training.progress import Progress

# Half the cores: threads that wait for each other at every operator crawl as soon as something else needs a core
# (measured beside a busy neighbour on 2 cores: 6 s with one thread, 100 s with two).
THREADS = max(1, (os.cpu_count() or 1) // 2)
_LAST = "last"


class Batches(Sized, Iterable[Any], Protocol):
    """The batches of one pass, in order; known how many."""


class TensorBatches:
    """Shuffled batches of tensors with an equal first dimension."""

    def __init__(self, tensors: Sequence[torch.Tensor], batch_size: int, seed: int) -> None:
        self._tensors, self._size = tensors, batch_size
        self._order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._size)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for rows in torch.split(self._order, self._size):
            yield [tensor[rows] for tensor in self._tensors]


class FittingTask(pl.LightningModule):
    """A model in training. The learning rate rises over the first `warm` of all steps, and falls as half a cosine."""

    rate: float
    warm = 0.0
    cosine = False

    def setup_pass(self, make: Callable[[int], Batches], seed: int, epochs: int) -> None:
        """make(epoch) gives the batches of a pass."""
        self._make, self._seed, self._epochs = make, seed, epochs
        self._batches: Batches | None = None

    def train_dataloader(self) -> Batches:
        """Called by Lightning before every pass."""
        # What is random in a pass depends on the seed and the pass alone: so it is the same after a restart.
        torch.manual_seed(int(np.random.SeedSequence((self._seed, self.current_epoch)).generate_state(1)[0]))
        self._batches = self._make(self.current_epoch)
        return self._batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Sets the learning rate for the step."""
        assert self._batches is not None
        done = (self.current_epoch + batch_idx / max(1, len(self._batches))) / self._epochs
        rate = self.rate * min(1.0, done / self.warm if self.warm else 1.0)
        rate *= 0.5 * (1 + float(np.cos(np.pi * done))) if self.cosine else 1.0
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


class _Curve(pl.Callback):
    """Keeps the mean loss of each epoch and reports progress."""

    def __init__(self, progress: Progress, label: str) -> None:
        self.losses: list[float] = []
        self._progress, self._label = progress, label
        self._sum, self._batches = 0.0, 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002 - Lightning's signature, as below
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self._sum += float(outputs["loss"])
        self._batches += 1
        if self._batches % 20 == 0:
            done = (trainer.current_epoch + self._batches / max(1, trainer.num_training_batches)) / max(
                1, trainer.max_epochs or 1
            )
            self._progress(min(1.0, done), f"{self._label}, epoch {trainer.current_epoch + 1}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.losses.append(self._sum / max(1, self._batches))
        self._sum, self._batches = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = list(state_dict["losses"])


def fit(
    task: FittingTask,
    make: Callable[[int], Batches],
    *,
    epochs: int,
    seed: int,
    progress: Progress,
    label: str,
    precision: str = "32-true",
    accelerator: str = "cpu",
    checkpoints: Path | None = None,
) -> list[float]:
    """Trains on make(0), make(1), ... and returns the mean loss of each epoch.

    The same seed, data and machine give the same weights. checkpoints: a folder that belongs to this very training; it
    is written to after every epoch, and a training that was killed goes on from there and ends with the same weights.
    The global generator and thread count of torch are left as they were found.
    """
    curve = _Curve(progress, label)
    callbacks: list[pl.Callback] = [curve]
    resume = None
    if checkpoints is not None:
        callbacks.append(ModelCheckpoint(checkpoints, filename=_LAST, enable_version_counter=False))
        found = checkpoints / f"{_LAST}.ckpt"
        resume = found if found.is_file() else None
    threads = torch.get_num_threads()
    task.setup_pass(make, seed, epochs)
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        torch.set_num_threads(THREADS)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]  # checked by the settings
            logger=False,
            enable_checkpointing=checkpoints is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
        )
        try:
            trainer.fit(task, ckpt_path=resume, weights_only=True)
        finally:
            torch.set_num_threads(threads)
    task.eval()
    task.cpu()
    progress(1.0, label)
    return curve.losses


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice about workers, devices and tips is for interactive use: jobs have their own log."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
