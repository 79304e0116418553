"""The ranker: a small DCN-v2 on the features of definitions.ranker_features, with a head for the reward and one for any
feedback at all; the reward's probability is calibrated."""

import torch
from torch import nn

from feature_store.definitions import RANKER_FEATURES


class CrossLayer(nn.Module):
    """x_{l+1} = x_0 * (U V x_l + b) + x_l (DCN-v2, Wang et al., WWW 2021, Eq. 2 with the low-rank weight of Eq. 3)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, first: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        crossed: torch.Tensor = first * self.up(self.down(x)) + x
        return crossed


REWARD, CLICK = 0, 1  # columns of the logits
PLACES = 20  # those further down count as the last of them
_PLACE_UNIT = 20.0  # of the log-odds: Adam moves every parameter as far in a step, and this one has far to go


class Ranker(nn.Module):
    """features (n, len(RANKER_FEATURES) + d), raw -> probability (n,) of a reward when shown.

    Both heads read one body, so that what people react to at all, which is seen more often, helps to tell what they
    are satisfied with. Further down a slate less is looked at: training adds what a place takes off the log-odds. The
    first place takes nothing off, and serving, which asks before there is a place, knows no other.

    Standardisation and calibration are buffers of the model, so that they travel into the exported graph: serving
    passes the features as definitions.ranker_features makes them. products: whether the products user * item are read,
    or only the declared features.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    use: torch.Tensor
    slope: torch.Tensor
    intercept: torch.Tensor

    def __init__(self, dimensions: int, products: bool, rank: int = 16, hidden: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        width = len(RANKER_FEATURES) + dimensions
        self.products = products
        self.cross = nn.ModuleList([CrossLayer(width, rank), CrossLayer(width, rank)])
        self.deep = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.heads = nn.Linear(width + hidden, 2)
        self.places = nn.Embedding(PLACES, 2, padding_idx=0)
        nn.init.zeros_(self.places.weight)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("use", (torch.arange(width) < len(RANKER_FEATURES)) | products)
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("intercept", torch.zeros(1))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Uncalibrated log-odds (n, 2) in the first place, of a reward and of a click."""
        first = ((features - self.mean) / self.scale).clamp(-5, 5) * self.use
        x = first
        for layer in self.cross:
            x = layer(first, x)
        output: torch.Tensor = self.heads(torch.cat([x, self.deep(first)], dim=1))
        return output

    def logits_at(self, features: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The same in places (n,) of a slate, from 0."""
        taken: torch.Tensor = self.places(place.clamp(max=PLACES - 1))
        return self.logits(features) + _PLACE_UNIT * taken

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.slope * self.logits(features)[:, REWARD] + self.intercept)

    def standardise(self, features: torch.Tensor) -> None:
        """Sets mean and scale from a sample (n, F). A constant column keeps scale 1. The products of the two vectors
        share one scale, so that no direction of the space is inflated."""
        declared = len(RANKER_FEATURES)
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        deviation[declared:] = deviation[declared:].square().mean().sqrt()
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
