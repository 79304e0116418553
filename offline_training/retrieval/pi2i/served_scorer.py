"""The scorer of PI2I as a release has it: what it computes, in fewer and larger steps."""

import torch
from torch import nn

from offline_training.retrieval.pi2i.scorer import NUMBERS, PairScorer
from online_serving.item_lists import TOTAL, TRIGGERS

_NEVER = -1e9  # logit of attention


class ServedScorer(nn.Module):
    """PairScorer for one user, B = 1, with its weights multiplied out.

    What depends on the trigger alone is computed once for each of them, and not for each of hundreds of pairs: their
    part of the query's first layer, and the keys and values of all heads, beside each other, with the layers before the
    keys and behind the values in them. A one behind the first layer's numbers carries all later constants.
    """

    by_trigger: torch.Tensor
    of_place: torch.Tensor
    outside: torch.Tensor
    by_pair: torch.Tensor
    own: torch.Tensor
    last: torch.Tensor
    wide: torch.Tensor
    constant: torch.Tensor

    @torch.no_grad()
    def __init__(self, scorer: PairScorer) -> None:
        super().__init__()
        layers = [*scorer.query, *scorer.deep]
        first, second, hidden, last = (layer for layer in layers if isinstance(layer, nn.Linear))
        d, self.heads = scorer.key.in_features, scorer.heads
        chosen, target, numbers = torch.split_with_sizes(first.weight, [d, d, NUMBERS], 1)
        numbers, wide = numbers / scorer.deviation, scorer.wide.weight / scorer.deviation
        query = torch.cat([second.weight, second.bias[:, None]], dim=1).T  # of the first layer, with the one
        of_query, of_context = hidden.weight.chunk(2, dim=1)
        own = query @ of_query.T
        own[-1] += hidden.bias

        keys, values, key_places, value_constants = [], [], [], []
        width = len(query.T) // self.heads
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            reads, says = query[:, part].T / width**0.5, of_context[:, part].T
            keys.append(scorer.key.weight[part].T @ reads)
            key_places.append((scorer.place[:, part] + scorer.key.bias[part]) @ reads)
            values.append(scorer.value.weight[part].T @ says)
            value_constants.append((scorer.value.bias[part] @ says).expand(TRIGGERS, -1))
        offset = torch.cat([first.bias - numbers @ scorer.mean, torch.ones(1)]).expand(TRIGGERS, -1)

        self.sizes = [len(query), self.heads * len(query), self.heads * len(hidden.weight)]
        outside = torch.zeros(sum(self.sizes))
        outside[2 * len(query) - 1 : sum(self.sizes[:2]) : len(query)] = _NEVER  # beside the one, in each head's keys
        for name, value in {
            "by_trigger": torch.cat([chosen.T, torch.zeros(d, 1), *keys, *values], dim=1),
            "of_place": torch.cat([offset, *key_places, *value_constants], dim=1),
            "outside": outside,
            "by_pair": torch.cat([torch.cat([target, numbers], dim=1).T, torch.zeros(d + NUMBERS, 1)], dim=1),
            "own": own,
            "last": last.weight.T,
            "wide": torch.cat([torch.zeros(d, 1), wide.T]),
            "constant": last.bias - wide @ scorer.mean,
        }.items():
            self.register_buffer(name, value.contiguous())
        self.wide[d + TOTAL] += 1.0

    def forward(
        self,
        triggers: torch.Tensor,
        length: torch.Tensor,
        user: torch.Tensor,
        trigger: torch.Tensor,
        target: torch.Tensor,
        cross: torch.Tensor,
    ) -> torch.Tensor:
        """As PairScorer."""
        past = (torch.arange(TRIGGERS, device=length.device) >= length).unsqueeze(1).to(triggers.dtype)
        of_triggers = triggers[0] @ self.by_trigger + (self.of_place + past * self.outside)
        offsets, keys, values = torch.split_with_sizes(of_triggers, self.sizes, 1)
        keys = keys.reshape(TRIGGERS, self.heads, self.sizes[0]).permute(2, 1, 0).flatten(1)
        values = values.reshape(TRIGGERS, self.heads, -1).transpose(0, 1).flatten(0, 1)

        near = target @ torch.cat([triggers, user.unsqueeze(1)], dim=1).transpose(1, 2)
        similarity = near.gather(2, trigger.unsqueeze(2))
        read = torch.cat([target, cross, near[:, :, TRIGGERS:], similarity], dim=2)
        query = torch.relu(read @ self.by_pair + offsets[trigger])
        attended = (query @ keys).reshape(1, -1, self.heads, TRIGGERS).softmax(dim=3)
        context = attended.reshape(1, -1, self.heads * TRIGGERS) @ values
        learnt: torch.Tensor = torch.relu(query @ self.own + context) @ self.last
        return (learnt + (read @ self.wide + self.constant)).squeeze(2)
