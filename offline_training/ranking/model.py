"""The ranker: a small DCN-v2 on the features of definitions.ranker_features, calibrated."""

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


class Ranker(nn.Module):
    """features (n, len(RANKER_FEATURES) + d), raw -> probability (n,) of a reward when shown.

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
        self.head = nn.Linear(width + hidden, 1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("use", (torch.arange(width) < len(RANKER_FEATURES)) | products)
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("intercept", torch.zeros(1))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Uncalibrated log-odds (n,)."""
        first = ((features - self.mean) / self.scale).clamp(-5, 5) * self.use
        x = first
        for layer in self.cross:
            x = layer(first, x)
        output: torch.Tensor = self.head(torch.cat([x, self.deep(first)], dim=1)).squeeze(1)
        return output

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.slope * self.logits(features) + self.intercept)

    def standardise(self, features: torch.Tensor) -> None:
        """Sets mean and scale from a sample (n, F). A constant column keeps scale 1. The products of the two vectors
        share one scale, so that no direction of the space is inflated."""
        declared = len(RANKER_FEATURES)
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        deviation[declared:] = deviation[declared:].square().mean().sqrt()
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
