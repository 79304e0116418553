"""The ranker as a release has it: what it computes, in fewer and larger steps."""

import torch
from torch import nn

from feature_store.definitions import RANKER_FEATURES
from offline_training.ranking.model import (
    AFFINITY,
    CONTEXT_PEAK,
    HISTORY_LENGTH,
    LARGEST_AFFINITY,
    REWARD,
    CrossLayer,
    Form,
    Ranker,
)


class ServedRanker(nn.Module):
    """Ranker.forward with its weights multiplied out; a form without products reads but the last of them.

    Of the last cross layer, x2 = x0 * (U t + b) + x1 with t = V x1, one number is wanted: w x2 comes without x2 as
    t (x0 diag(w) U) + w x1 + x0 (w * b). What else is linear in the features goes with the last term.
    """

    mean: torch.Tensor
    per_deviation: torch.Tensor
    affinity: torch.Tensor
    nobody: torch.Tensor
    linear: torch.Tensor
    constant: torch.Tensor
    down: torch.Tensor
    up: torch.Tensor
    up_offset: torch.Tensor
    inner: torch.Tensor
    outer: torch.Tensor
    wide: torch.Tensor
    hidden: torch.Tensor
    hidden_offset: torch.Tensor
    deep: torch.Tensor

    @torch.no_grad()
    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.narrow, self.crossed = ranker.form < Form.PRODUCTS, ranker.form > Form.LINEAR
        width = len(ranker.use)
        read = [*range(len(RANKER_FEATURES)), width - 1] if self.narrow else list(range(width))
        use, share = ranker.use[read].float(), ranker.slope * ranker.blend[0]
        wide, deep = (share * ranker.heads.weight[REWARD]).tensor_split([width])
        wide, levels = wide[read] * use, torch.zeros(width)
        levels[[HISTORY_LENGTH, CONTEXT_PEAK]] = ranker.levels[[0, 2]]
        found = {
            "mean": ranker.mean[read],
            "per_deviation": 1 / ranker.scale[read],
            "affinity": ranker.slope * ranker.blend[1],
            "nobody": ranker.levels[1],
            "linear": (levels[read] + wide)[:, None],
            "constant": share * ranker.heads.bias[REWARD] + ranker.intercept,
        }
        if self.crossed:
            first, last = (layer for layer in ranker.cross if isinstance(layer, CrossLayer))
            (hidden,) = (layer for layer in ranker.deep.modules() if isinstance(layer, nn.Linear))
            found |= {
                "down": (first.down.weight[:, read] * use).T,
                "up": first.up.weight[read].T,
                "up_offset": first.up.bias[read] + 1,
                "inner": (last.down.weight[:, read] * use).T,
                "outer": wide[:, None] * last.up.weight[read],
                "wide": wide[:, None],
                "linear": (levels[read] + wide * last.up.bias[read])[:, None],
                "hidden": (hidden.weight[:, read] * use).T,
                "hidden_offset": hidden.bias,
                "deep": deep[:, None],
            }
        for name, value in found.items():
            self.register_buffer(name, value.clone(memory_format=torch.contiguous_format))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """As Ranker."""
        read = torch.cat([features[:, : len(RANKER_FEATURES)], features[:, -1:]], dim=1) if self.narrow else features
        x0 = ((read - self.mean) * self.per_deviation).clamp(-5, 5)
        retrieval = features[:, AFFINITY].clamp(-LARGEST_AFFINITY, LARGEST_AFFINITY)
        nobody_yet = (features[:, HISTORY_LENGTH] <= 0).to(features.dtype)
        order = self.affinity * retrieval + (self.nobody * nobody_yet + self.constant)
        linear = x0 @ self.linear
        if self.crossed:
            x1 = x0 * (x0 @ self.down @ self.up + self.up_offset)
            order = order + ((x1 @ self.inner) * (x0 @ self.outer)).sum(dim=1)
            linear = linear + x1 @ self.wide + torch.relu(x0 @ self.hidden + self.hidden_offset) @ self.deep
        return torch.sigmoid(order + linear.squeeze(1))
