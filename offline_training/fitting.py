"""One quiet, seeded Lightning loop for every model."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from offline_training.progress import Progress

# Half the cores: threads that wait for each other at every operator crawl as soon as something else needs a core
# (measured beside a busy neighbour on 2 cores: 6 s with one thread, 100 s with two).
THREADS = max(1, (os.cpu_count() or 1) // 2)


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
            done = trainer.global_step / max(1, int(trainer.estimated_stepping_batches))
            self._progress(min(1.0, done), f"{self._label}, epoch {trainer.current_epoch + 1}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.losses.append(self._sum / max(1, self._batches))
        self._sum, self._batches = 0.0, 0


def fit(
    module: pl.LightningModule,
    tensors: Sequence[torch.Tensor],
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    progress: Progress,
    label: str,
) -> list[float]:
    """Trains on shuffled batches of the tensors (equal first dimension) and returns the mean loss of each epoch.

    The same seed, data and machine give the same weights. The global generator and thread count of torch are left as
    they were found.
    """
    curve = _Curve(progress, label)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        data = TensorDataset(*tensors)
        order = RandomSampler(data, generator=torch.Generator().manual_seed(seed))
        batches = DataLoader(data, sampler=BatchSampler(order, batch_size, drop_last=False), batch_size=None)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            callbacks=[curve],
        )
        try:
            trainer.fit(module, batches)
        finally:
            torch.set_num_threads(threads)
    module.eval()
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
