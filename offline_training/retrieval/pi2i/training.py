"""Fits the scorer on what users went for next, against everything else that their lists would have offered."""

import numpy as np
import torch

from feature_store.arrays import Float32
from offline_training.fitting import FittingTask, TensorBatches, fit
from offline_training.progress import Progress
from offline_training.retrieval.pi2i.moments import Moments
from offline_training.retrieval.pi2i.scorer import PairScorer
from online_serving.item_lists import CROSS, TRIGGERS, ItemLists

NEGATIVES = 127  # pairs read per moment beside one that is right
EPOCHS, BATCH, RATE, WEIGHT_DECAY = 3, 64, 5e-3, 0.1
LEAST = 50  # moments to learn from; with fewer there is no scorer


class ScorerTask(FittingTask):
    """Batches are (triggers, length, user, pairs' trigger, pairs' target, cross): items are numbers plus one, 0 is
    padding; the first pair of each moment leads to what was wanted."""

    vectors: torch.Tensor

    rate = RATE
    cosine = True

    def __init__(self, scorer: PairScorer, vectors: Float32) -> None:
        super().__init__()
        self.scorer = scorer
        self.register_buffer("vectors", torch.from_numpy(np.vstack([np.zeros_like(vectors[:1]), vectors])))

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        triggers, length, user, trigger, target, cross = batch
        logits = self.scorer(self.vectors[triggers], length, user, trigger, self.vectors[target], cross)
        return trigger_target_softmax(logits, target == 0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.scorer.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)


def trigger_target_softmax(logits: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """Mean over moments of -ln P(wanted), P being the softmax over all pairs (B, P) of the moment, the first of which
    leads to the wanted item (PI2I, arXiv 2601.16815: the negatives follow the relation of trigger and target)."""
    return (logits.masked_fill(padding, -torch.inf).logsumexp(dim=1) - logits[:, 0]).mean()


def fit_scorer(
    lists: ItemLists, vectors: Float32, moments: Moments, seed: int, progress: Progress
) -> PairScorer | None:
    """vectors (I, d) of the items, which stay as they are. None if the lists hold the wanted item in fewer than LEAST
    moments."""
    rows = _rows(lists, moments, np.random.default_rng(seed))
    if len(rows[0]) < LEAST:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = ScorerTask(PairScorer(vectors.shape[1]), vectors)
    _standardise(task, rows)
    fit(
        task,
        lambda epoch: TensorBatches(rows, BATCH, seed + epoch),
        epochs=EPOCHS,
        seed=seed,
        progress=progress,
        label="list scorer",
    )
    task.scorer.eval()
    return task.scorer


def _rows(lists: ItemLists, moments: Moments, rng: np.random.Generator) -> list[torch.Tensor]:
    """The tensors of a batch, of the moments whose wanted item is among the pairs."""
    width = NEGATIVES + 1
    triggers, trigger, target = (np.zeros((len(moments), n), np.int64) for n in (TRIGGERS, width, width))
    cross = np.zeros((len(moments), width, CROSS), np.float32)
    length = np.zeros(len(moments), np.int64)
    for row, allowed in enumerate(moments.allowed(len(lists))):
        read = lists.triggers(moments.liked[row])
        pairs = lists.pairs(read, allowed)
        right = pairs.target == moments.wanted[row]
        if not right.any():
            continue
        order = np.argsort(rng.random(len(right)) - right, kind="stable")[:width]  # what is right, then a random part
        triggers[row, : len(read)], length[row] = read + 1, len(read)
        trigger[row, : len(order)], target[row, : len(order)] = pairs.trigger[order], pairs.target[order] + 1
        cross[row, : len(order)] = pairs.cross[order]
    kept = length > 0
    return [torch.from_numpy(x[kept]) for x in (triggers, length, moments.user, trigger, target, cross)]


@torch.no_grad()
def _standardise(task: ScorerTask, rows: list[torch.Tensor]) -> None:
    triggers, _, user, trigger, target, cross = (tensor[:: max(1, len(tensor) // 1000)] for tensor in rows)
    chosen = task.vectors[triggers].gather(1, trigger.unsqueeze(2).expand(-1, -1, task.vectors.shape[1]))
    numbers = task.scorer.numbers(chosen, user, task.vectors[target], cross)[target > 0]
    task.scorer.mean.copy_(numbers.mean(0))
    task.scorer.deviation.copy_(numbers.std(0).clamp(min=1e-3))
