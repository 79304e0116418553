"""The two-tower retrieval model: users and items as unit vectors whose inner product ranks items.

The towers read what serving can read: an item is its content tokens and, once known, its id; a user is the vectors of
the items they liked and their profile tokens. So an item that came a second ago, or a user without history, has a
vector.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from feature_store.definitions import TOKEN_BUCKETS

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
_BATCH = 4096


class TokenMean(nn.Module):
    """Mean embedding of the tokens that are not padding; zero when there are none.

    The same as EmbeddingBag(mode="mean", padding_idx=0), in operators that ONNX has.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKEN_BUCKETS + 1, dimensions, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=dimensions**-0.5)
        with torch.no_grad():
            self.embedding.weight[0] = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = (tokens > 0).sum(dim=1, keepdim=True).clamp(min=1).to(self.embedding.weight.dtype)
        mean: torch.Tensor = self.embedding(tokens).sum(dim=1) / count
        return mean


class ItemTower(nn.Module):
    """id (B,) with 0 for unknown, tokens (B, ITEM_TOKENS) -> unit vectors (B, d)."""

    def __init__(self, items: int, dimensions: int) -> None:
        super().__init__()
        self.ids = nn.Embedding(items + 1, dimensions)
        nn.init.normal_(self.ids.weight, std=dimensions**-0.5)
        self.content = TokenMean(dimensions)
        self.mlp = nn.Sequential(
            nn.Linear(2 * dimensions, 2 * dimensions), nn.ReLU(), nn.Linear(2 * dimensions, dimensions)
        )

    def forward(self, ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        identity, content = self.ids(ids), self.content(tokens)
        return F.normalize(identity + content + self.mlp(torch.cat([identity, content], dim=1)), dim=1)


class UserTower(nn.Module):
    """history (B, L, d) newest first, mask (B, L), tokens (B, USER_TOKENS) -> unit vectors (B, d).

    The history is pooled by attention: a learnt query on the item's vector plus a learnt bias per place, which starts
    as a decay. Without history and profile the output is a learnt constant direction: what everybody likes.
    """

    def __init__(self, history_length: int, dimensions: int) -> None:
        super().__init__()
        self.query = nn.Linear(dimensions, 1)
        self.recency = nn.Parameter(-0.1 * torch.arange(history_length, dtype=torch.float32))
        self.profile = TokenMean(dimensions)
        self.mlp = nn.Sequential(
            nn.Linear(3 * dimensions + 1, 2 * dimensions), nn.ReLU(), nn.Linear(2 * dimensions, dimensions)
        )

    def forward(self, history: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        # Bounded logits make exp safe without subtracting a maximum over places that may all be masked.
        weight = torch.exp(10 * torch.tanh((self.query(history).squeeze(2) + self.recency) / 10)) * mask
        pooled = self._weighted(history, weight)
        count = mask.sum(dim=1, keepdim=True)
        features = [pooled, self._weighted(history, mask), self.profile(tokens), torch.log1p(count)]
        return F.normalize(pooled + self.mlp(torch.cat(features, dim=1)), dim=1)

    @staticmethod
    def _weighted(history: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (history * weight.unsqueeze(2)).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)


class TwoTower(nn.Module):
    """Both towers and the content of the catalogue they were made for: tokens (I, ITEM_TOKENS).

    `ids` (I + 1,) is the id by which the tower embeds each item: its number plus one, or 0 for an item that did not
    occur in training, whose id says nothing. Row 0 of `ids` and `tokens` stands for padding, so that padded numbers can
    be used as they are.
    """

    tokens: torch.Tensor
    ids: torch.Tensor

    def __init__(self, tokens: Int64, history_length: int, dimensions: int) -> None:
        super().__init__()
        self.item_tower = ItemTower(len(tokens), dimensions)
        self.user_tower = UserTower(history_length, dimensions)
        self.dimensions, self.history_length = dimensions, history_length
        self.register_buffer("tokens", torch.from_numpy(np.vstack([np.zeros_like(tokens[:1]), tokens])))
        self.register_buffer("ids", torch.arange(len(tokens) + 1))

    def user_inputs(self, vectors: torch.Tensor, history: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """History vectors (B, L, d) and mask (B, L) from vectors (I+1, d), row 0 ignored, and numbers (B, L)."""
        mask = (history > 0).to(vectors.dtype)
        return vectors[history] * mask.unsqueeze(2), mask

    @torch.no_grad()
    def item_vectors(self, content_only: bool = False) -> Float32:
        """Unit vectors (I, d) of the catalogue; content_only: as if every item were new."""
        blocks = []
        for start in range(1, len(self.tokens), _BATCH):
            tokens = self.tokens[start : start + _BATCH]
            ids = self.ids[start : start + _BATCH]
            blocks.append(self.item_tower(torch.zeros_like(ids) if content_only else ids, tokens))
        return torch.cat(blocks).numpy()

    @torch.no_grad()
    def user_vectors(self, vectors: Float32, history: Int64, profile: Int64) -> Float32:
        """Unit vectors (n, d) of users. vectors: item_vectors(); history (n, L) padded item numbers plus one."""
        padded = torch.from_numpy(np.vstack([np.zeros_like(vectors[:1]), vectors]))
        blocks = [np.zeros((0, self.dimensions), np.float32)]
        for start in range(0, len(history), _BATCH):
            rows = slice(start, start + _BATCH)
            inputs = self.user_inputs(padded, torch.from_numpy(history[rows]))
            blocks.append(self.user_tower(*inputs, torch.from_numpy(profile[rows])).numpy())
        return np.concatenate(blocks)
