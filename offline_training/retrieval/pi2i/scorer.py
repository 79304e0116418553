"""The interactive scorer of PI2I: how likely somebody goes from a trigger to a target."""

import torch
from torch import nn

from online_serving.item_lists import CROSS, TOTAL, TRIGGERS

NUMBERS = CROSS + 2
_WIDTH, _HEADS = 32, 2


class PairScorer(nn.Module):
    """A logit for each pair of a trigger and a target of a user (PI2I, arXiv 2601.16815, Personalised Retrieval Stage).

    The triggers, newest first, are the sequence that each pair attends to, with MLP([trigger; target; cross]) as the
    query of several heads. Beside the numbers of the pair the scorer reads <user, target> and <trigger, target>; all
    are standardised by mean and deviation (NUMBERS,).

    What is learnt is added to ln of the target's summed list scores: an untrained scorer ranks as the lists do.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUMBERS))
        self.register_buffer("deviation", torch.ones(NUMBERS))
        self.heads = _HEADS
        self.query = nn.Sequential(
            nn.Linear(2 * dimensions + NUMBERS, 2 * _WIDTH), nn.ReLU(), nn.Linear(2 * _WIDTH, _WIDTH)
        )
        self.key, self.value = nn.Linear(dimensions, _WIDTH), nn.Linear(dimensions, _WIDTH)
        self.place = nn.Parameter(torch.zeros(TRIGGERS, _WIDTH))
        last = nn.Linear(_WIDTH, 1)
        self.deep = nn.Sequential(nn.Linear(2 * _WIDTH, _WIDTH), nn.ReLU(), last)
        self.wide = nn.Linear(NUMBERS, 1, bias=False)
        for nothing_yet in (last.weight, self.wide.weight):
            nn.init.zeros_(nothing_yet)

    def forward(
        self,
        triggers: torch.Tensor,
        length: torch.Tensor,
        user: torch.Tensor,
        trigger: torch.Tensor,
        target: torch.Tensor,
        cross: torch.Tensor,
    ) -> torch.Tensor:
        """(B, P) logits. triggers (B, TRIGGERS, d) vectors, the first length (B,) >= 1 of them count; user (B, d);
        trigger (B, P) places among the triggers; target (B, P, d) vectors; cross (B, P, CROSS)."""
        batch, pairs = trigger.shape
        first = TRIGGERS * torch.arange(batch, device=trigger.device).unsqueeze(1)
        chosen = triggers.flatten(0, 1)[first + trigger]  # whole rows: gather looks at every number by itself
        numbers = self.numbers(chosen, user, target, cross)
        query = self.query(torch.cat([chosen, target, numbers], dim=2))
        past = torch.arange(TRIGGERS, device=length.device) >= length.unsqueeze(1)  # beyond the last trigger
        attended = nn.functional.scaled_dot_product_attention(
            self._heads(query),
            self._heads(self.key(triggers) + self.place),
            self._heads(self.value(triggers)),
            attn_mask=torch.zeros_like(past, dtype=query.dtype).masked_fill(past, -1e9)[:, None, None],
        )
        context = attended.transpose(1, 2).reshape(batch, pairs, _WIDTH)
        learnt: torch.Tensor = self.deep(torch.cat([query, context], dim=2)) + self.wide(numbers)
        return cross[:, :, TOTAL] + learnt.squeeze(2)

    def numbers(
        self, chosen: torch.Tensor, user: torch.Tensor, target: torch.Tensor, cross: torch.Tensor
    ) -> torch.Tensor:
        """(B, P, NUMBERS) standardised numbers of the pairs; chosen (B, P, d): their triggers' vectors."""
        affinity, similarity = (target @ user.unsqueeze(2)).squeeze(2), (target * chosen).sum(2)
        raw = torch.cat([cross, affinity.unsqueeze(2), similarity.unsqueeze(2)], dim=2)
        return (raw - self.mean) / self.deviation

    @staticmethod
    def _heads(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], _HEADS, _WIDTH // _HEADS).transpose(1, 2)
