"""Losses of the two-tower model: softmax over a catalogue, or over a batch with a correction for how it was sampled."""

from typing import Any

import torch

_ROWS = 2_048  # logits computed at once: a block of them stays near the cache
_LARGEST = 60.0  # logits are cut here, so that their exponentials add up without overflow


class _FullSoftmax(torch.autograd.Function):
    """Gradients are made in the forward pass, block by block, so that the (n, I) logits never exist as a whole."""

    @staticmethod
    def forward(
        ctx: Any, users: torch.Tensor, items: torch.Tensor, positive: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        low = users.dtype
        candidates = items.to(low)
        user_gradient = torch.empty(users.shape, dtype=torch.float32, device=users.device)
        item_gradient = torch.zeros(items.shape, dtype=torch.float32, device=items.device)
        loss = torch.zeros((), dtype=torch.float64, device=users.device)
        for start in range(0, len(users), _ROWS):
            block, wanted = users[start : start + _ROWS], positive[start : start + _ROWS]
            part = weight[start : start + _ROWS]
            odds = (block @ candidates.T).clamp_(max=_LARGEST).exp_()
            total = odds.sum(dim=1, dtype=torch.float32)
            target = candidates[wanted]
            loss += (part * (total.log() - (block * target).sum(dim=1, dtype=torch.float32))).sum(dtype=torch.float64)
            share = (part / total).unsqueeze(1)
            user_gradient[start : start + _ROWS] = (odds @ candidates).float() * share - target * part.unsqueeze(1)
            item_gradient += (odds.T @ (block * share.to(low))).float()
            item_gradient.index_add_(0, wanted, block * part.unsqueeze(1), alpha=-1)
        total_weight = weight.sum().clamp(min=1e-12)
        ctx.save_for_backward(user_gradient / total_weight, item_gradient / total_weight)
        return (loss / total_weight).float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        users, items = ctx.saved_tensors
        return users * gradients[0], items * gradients[0], None, None


def full_softmax(
    users: torch.Tensor, items: torch.Tensor, positive: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Weighted mean of -log softmax(<u, all items>)[positive], for catalogues that fit in a batch.

    users (n, d), scaled by 1 / temperature; items (I, d); positive (n,) rows of items; weight (n,). With users in
    bfloat16 the products are computed in it and added up in float32. Logits count up to 60.
    """
    loss: torch.Tensor = _FullSoftmax.apply(users, items, positive, weight)  # type: ignore[no-untyped-call]  # torch's own
    return loss


def in_batch_softmax(
    users: torch.Tensor,
    items: torch.Tensor,
    number: torch.Tensor,
    log_q: torch.Tensor,
    weight: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Weighted sum of the losses of n positives against the other items of their batch (Yi et al., RecSys 2019,
    Eqs. 3-5).

    users, items: (n, d), row i a positive pair. number: (n,) item numbers: a duplicate of the positive is no negative
    and is masked. log_q: (n,) log probability that a batch place holds the item; subtracting it from the logits makes
    the in-batch softmax estimate the softmax over the whole catalogue. weight: (n,).
    """
    logits = users @ items.T / temperature - log_q
    logits = logits.masked_fill(_duplicates(number), -torch.inf)
    wanted = torch.arange(len(number), device=logits.device)
    return (weight * torch.nn.functional.cross_entropy(logits, wanted, reduction="none")).sum()


def corrected_in_batch_softmax(
    users: torch.Tensor,
    items: torch.Tensor,
    number: torch.Tensor,
    share: torch.Tensor,
    weight: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The same with the correction of arXiv 2507.09331: the positive was not drawn, so its logit is not corrected and
    is not in the denominator.

    share (n,): n_j / N, each item's part of the log. A negative j is drawn with q'_j = n_j / (N - n_i), given that it
    is not the positive i; s'_j = s_ij - ln q'_j, with duplicates of the positive masked. The loss of a row is
    sg(1 - P_i) (ln sum_j exp s'_j - s_ii), where P_i = exp s_ii / (exp s_ii + mean_j exp s'_j) estimates the softmax
    over the whole catalogue and sg stops the gradient. A row without negatives has no loss.
    """
    score = users @ items.T / temperature
    positive = score.diagonal()
    log_q = share.log().unsqueeze(0) - torch.log1p(-share.clamp(max=1 - 1e-6)).unsqueeze(1)
    hidden = number.unsqueeze(0) == number.unsqueeze(1)
    drawn = (~hidden).sum(dim=1)
    rows = drawn > 0
    total = torch.logsumexp((score - log_q).masked_fill(hidden, -torch.inf)[rows], dim=1)
    doubt = torch.sigmoid(total - drawn[rows].log() - positive[rows]).detach()  # 1 - P_i
    return (weight[rows] * doubt * (total - positive[rows])).sum()


class StreamingFrequency(torch.nn.Module):
    """How probable an item is in a place of a batch, estimated while batches go by (Yi et al., RecSys 2019, Alg. 2).

    For each item the mean number of places between two that hold it: B <- (1 - a) B + a (t - A), A <- t, and p = 1 / B.
    The estimate is a buffer, so that a checkpoint holds it.
    """

    last: torch.Tensor
    distance: torch.Tensor
    place: torch.Tensor

    def __init__(self, items: int, rate: float = 0.05) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("last", torch.zeros(items, dtype=torch.float64))
        self.register_buffer("distance", torch.full((items,), float(items), dtype=torch.float64))
        self.register_buffer("place", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def forward(self, number: torch.Tensor) -> torch.Tensor:
        """Takes in the item numbers of one batch (n,) and returns the probability of each row's item (n,).

        An item that stands in c places of the batch was met n / c places apart.
        """
        distinct, place, count = torch.unique(number, return_inverse=True, return_counts=True)
        self.place += len(number)
        fresh = self.last[distinct] == 0
        waited = (self.place - self.last[distinct]) / count
        smooth = (1 - self.rate) * self.distance[distinct] + self.rate * waited
        self.distance[distinct] = torch.where(fresh, waited, smooth).clamp(min=1.0)
        self.last[distinct] = self.place
        probability: torch.Tensor = (1 / self.distance[distinct])[place].float()
        return probability


def _duplicates(number: torch.Tensor) -> torch.Tensor:
    """(n, n) whether another row holds the same item."""
    same = number.unsqueeze(0) == number.unsqueeze(1)
    return same & ~torch.eye(len(number), dtype=torch.bool, device=number.device)
