"""The two-tower retrieval model: users and items as vectors whose inner product ranks items.

The towers read what serving can read: an item is its content tokens and, once known, its id; a user is the sequence of
what they did and their profile tokens. So an item that came a second ago, or a user without history, has a vector.
"""

from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from feature_store.arrays import Float32, Int64
from feature_store.definitions import GAP_BUCKETS, KIND_BUCKETS, TOKEN_BUCKETS
from offline_training.retrieval.sequences import Histories
from offline_training.settings import TrainingSettings

_BATCH = 512
_SMALL = 0.02
_KNOWN = 3.0  # times as large is what is known at the beginning
_ROTATION_BASE = 100.0  # of the slowest rotation the period is 600 places: histories are hundreds long, not thousands


class TokenMean(nn.Module):
    """Mean embedding of the tokens that are not padding; zero when there are none.

    The same as EmbeddingBag(mode="mean", padding_idx=0), in operators that ONNX has.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKEN_BUCKETS + 1, dimensions, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=_SMALL)
        with torch.no_grad():
            self.embedding.weight[0] = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count = (tokens > 0).sum(dim=1, keepdim=True).clamp(min=1).to(self.embedding.weight.dtype)
        mean: torch.Tensor = self.embedding(tokens).sum(dim=1) / count
        return mean


class ItemTower(nn.Module):
    """id (B,) with 0 for unknown, tokens (B, ITEM_TOKENS) -> vectors (B, d): a unit vector of taste (d - 1), and how
    popular the item is lately, times the temperature of the softmax.

    popularity (I + 1,): of the catalogue's items as of the end of training, and in its first place what is expected of
    any other.
    """

    popularity: torch.Tensor

    def __init__(self, items: int, dimensions: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("popularity", torch.zeros(items + 1))
        dimensions -= 1
        self.ids = nn.Embedding(items + 1, dimensions)
        # Small, because only the direction counts: a step of the optimizer then turns a vector by more.
        nn.init.normal_(self.ids.weight, std=_SMALL)
        self.content = TokenMean(dimensions)
        self.mlp = nn.Sequential(
            nn.Linear(dimensions, 2 * dimensions), nn.ReLU(), nn.Linear(2 * dimensions, dimensions)
        )

    @torch.no_grad()
    def begin_at(self, directions: Float32) -> None:
        """Moves ids from where they are at random. directions (I, d - 1): of unit mean square, or of nothing."""
        self.ids.weight[1:] += _KNOWN * _SMALL * torch.from_numpy(directions)

    def taste(self, ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors (B, d - 1)."""
        content = self.content(tokens)
        return F.normalize(self.ids(ids) + content + self.mlp(content), dim=1)

    def forward(self, ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        popular = self.temperature * self.popularity[ids]
        return torch.cat([self.taste(ids, tokens), popular.unsqueeze(1)], dim=1)

    def of_unknown(self) -> "ItemTower":
        """The same for id 0 alone: without what was learnt of each item, which grows with the catalogue."""
        tower = ItemTower(0, self.ids.embedding_dim + 1, self.temperature)
        learnt = self.state_dict()
        of_items = {name: learnt[name][:1] for name in ("popularity", "ids.weight")}
        tower.load_state_dict(learnt | of_items)
        return tower


class Block(nn.Module):
    """A causal transformer block with rotary places (Su et al. 2021): what matters is how far apart two events are."""

    def __init__(self, dimensions: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_feed = nn.LayerNorm(dimensions), nn.LayerNorm(dimensions)
        self.projections = nn.Linear(dimensions, 3 * dimensions)
        self.output = nn.Linear(dimensions, dimensions)
        self.feed = nn.Sequential(
            nn.Linear(dimensions, 4 * dimensions), nn.GELU(), nn.Linear(4 * dimensions, dimensions)
        )
        self.dropout = nn.Dropout(dropout)

    def at(self, x: torch.Tensor, place: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        """The output (B, 1, d) of forward at one place (B,) each, at a fraction of its cost."""
        rows, places, d = x.shape
        heads = (rows, -1, self.heads, d // self.heads)
        here = x.gather(1, place.view(-1, 1, 1).expand(-1, 1, d))
        weight, bias = self.projections.weight, self.projections.bias
        query = F.linear(self.before_attention(here), weight[:d], bias[:d]).view(heads).transpose(1, 2)
        key, value = F.linear(self.before_attention(x), weight[d:], bias[d:]).chunk(2, dim=2)
        key, value = key.view(heads).transpose(1, 2), value.view(heads).transpose(1, 2)
        query = _rotated(query, cosine[place].unsqueeze(1).unsqueeze(1), sine[place].unsqueeze(1).unsqueeze(1))
        later = torch.arange(places, device=x.device) > place.unsqueeze(1)
        scores = query @ _rotated(key, cosine[:places], sine[:places]).transpose(2, 3) / (d // self.heads) ** 0.5
        shares = scores.masked_fill(later[:, None, None], float("-inf")).softmax(dim=3)
        here = here + self.output((shares @ value).transpose(1, 2).reshape(rows, 1, d))
        fed: torch.Tensor = here + self.feed(self.before_feed(here))
        return fed

    def forward(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        rows, places, d = x.shape
        parts = self.projections(self.before_attention(x)).view(rows, places, 3, self.heads, d // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        cosine, sine = cosine.to(query.dtype), sine.to(query.dtype)
        query, key = _rotated(query, cosine, sine), _rotated(key, cosine, sine)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.output(seen.transpose(1, 2).reshape(rows, places, d)))
        fed: torch.Tensor = x + self.dropout(self.feed(self.before_feed(x)))
        return fed


class UserTower(nn.Module):
    """What a user did, oldest first, and their profile -> vectors (B, d): a unit vector of taste (d - 1), and the
    weight of what is popular, which is above 0 and the same for everybody.

    history (B, L, d): the items' vectors, of which the taste is read. kinds, gaps (B, L): as in Histories. length (B,):
    events; what lies behind them does not matter, because attention looks back only. tokens (B, USER_TOKENS): the
    profile.
    """

    cosine: torch.Tensor
    sine: torch.Tensor
    trust: (
        torch.Tensor
    )  # in popularity, relative to taste: 1 as trained, more where taste is known less well than it seems

    def __init__(self, length: int, dimensions: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.kinds = nn.Embedding(KIND_BUCKETS + 1, dimensions)
        self.gaps = nn.Embedding(GAP_BUCKETS, dimensions)
        for embedding in (self.kinds, self.gaps):
            nn.init.normal_(embedding.weight, std=_SMALL)
        self.start = nn.Parameter(torch.randn(dimensions) * _SMALL)
        self.crowd = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.profile = TokenMean(dimensions)
        self.blocks = nn.ModuleList([Block(dimensions, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dimensions)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("trust", torch.ones(()))
        width = dimensions // heads
        speed = _ROTATION_BASE ** (-torch.arange(0, width, 2) / width)
        angle = (torch.arange(length + 1).unsqueeze(1) * speed).repeat(1, 2)
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    @property
    def weight(self) -> float:
        """Of what is popular, as trained."""
        return float(F.softplus(self.crowd.detach()))

    def states(
        self, history: torch.Tensor, kinds: torch.Tensor, gaps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Vectors (B, L + 1, d): place s is the user who did the first s events, and no more."""
        x = self._events(history, kinds, gaps, tokens)
        for block in self.blocks:
            x = block(x, self.cosine[: x.shape[1]], self.sine[: x.shape[1]])
        return self._taste(x)

    def _events(
        self, history: torch.Tensor, kinds: torch.Tensor, gaps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        start = (self.start + self.profile(tokens)).unsqueeze(1)
        taste = F.pad(self.scale * history[:, :, :-1], (0, 1))
        events: torch.Tensor = self.dropout(torch.cat([start, taste + self.kinds(kinds) + self.gaps(gaps)], dim=1))
        return events

    def _taste(self, x: torch.Tensor) -> torch.Tensor:
        taste = F.normalize(self.norm(x)[:, :, :-1], dim=2)
        return torch.cat([taste, F.softplus(self.crowd).expand_as(x[:, :, -1:])], dim=2)

    def forward(
        self,
        history: torch.Tensor,
        kinds: torch.Tensor,
        gaps: torch.Tensor,
        length: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """The state behind the last event; outside of training the last block is computed for it alone."""
        x, last = self._events(history, kinds, gaps, tokens), cast(Block, self.blocks[-1])
        for block in self.blocks[:-1]:
            x = block(x, self.cosine[: x.shape[1]], self.sine[: x.shape[1]])
        user = self._taste(last.at(x, length, self.cosine, self.sine)).squeeze(1)
        return torch.cat([user[:, :-1], self.trust * user[:, -1:]], dim=1)


class TwoTower(nn.Module):
    """Both towers and the content of the catalogue they were made for: tokens (I, ITEM_TOKENS).

    `ids` (I + 1,) is the id by which the tower embeds each item: its number plus one, or 0 for an item that did not
    occur in training, whose id says nothing. Row 0 of `ids` and `tokens` stands for padding, so that padded numbers can
    be used as they are.
    """

    tokens: torch.Tensor
    ids: torch.Tensor

    def __init__(self, tokens: Int64, settings: TrainingSettings) -> None:
        super().__init__()
        length, d = settings.history_length, settings.dimensions
        self.item_tower = ItemTower(len(tokens), d, settings.temperature)
        self.user_tower = UserTower(length, d, settings.layers, settings.heads, settings.dropout)
        self.dimensions, self.history_length = d, length
        self.register_buffer("tokens", torch.from_numpy(np.vstack([np.zeros_like(tokens[:1]), tokens])))
        self.register_buffer("ids", torch.arange(len(tokens) + 1))

    @torch.no_grad()
    def item_vectors(self, content_only: bool = False) -> Float32:
        """Vectors (I, d) of the catalogue; content_only: as if every item were new."""
        blocks = []
        for start in range(1, len(self.tokens), _BATCH):
            tokens = self.tokens[start : start + _BATCH]
            ids = self.ids[start : start + _BATCH]
            blocks.append(self.item_tower(torch.zeros_like(ids) if content_only else ids, tokens))
        vectors = torch.cat(blocks).numpy()
        return vectors if content_only else self.with_popularity(vectors)

    @torch.no_grad()
    def with_popularity(self, vectors: Float32) -> Float32:
        """Vectors (I, d) of the catalogue with each item's own popularity in their last place: it is known of items,
        too, that have no id."""
        own = (self.item_tower.temperature * self.item_tower.popularity[1:]).numpy()
        return np.concatenate([vectors[:, :-1], own[:, None]], axis=1)

    @torch.no_grad()
    def user_vectors(self, vectors: Float32, histories: Histories, profile: Int64) -> Float32:
        """Vectors (n, d) of users. vectors: item_vectors(); profile (n, USER_TOKENS)."""
        padded = torch.from_numpy(np.vstack([np.zeros_like(vectors[:1]), vectors]))
        blocks = [np.zeros((0, self.dimensions), np.float32)]
        for start in range(0, len(profile), _BATCH):
            rows = slice(start, start + _BATCH)
            item, kind, gap, length = (torch.from_numpy(column[rows]) for column in histories[:4])
            tokens = torch.from_numpy(profile[rows])
            blocks.append(self.user_tower(padded[item], kind, gap, length, tokens).numpy())
        return np.concatenate(blocks)


def _rotated(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=3)
    return x * cosine + torch.cat([-second, first], dim=3) * sine
