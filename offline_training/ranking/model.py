"""The ranker: a small DCN-v2 on the features of definitions.ranker_features, or less where there is little to learn it
from, with a head for the reward and one for any feedback at all; blended with retrieval, the reward's probability is
calibrated."""

from enum import IntEnum

import torch
from torch import nn

from feature_store.definitions import RANKER_FEATURES


class Form(IntEnum):
    """What a ranker computes of the features, each more than the one before."""

    LINEAR = 0  # a sum
    CROSSED = 1  # with crosses and a hidden layer
    PRODUCTS = 2  # and of all products user * item, too


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
RECENT = [feature.name for feature in RANKER_FEATURES].index("recent_popularity")
AFFINITY = [feature.name for feature in RANKER_FEATURES].index("affinity")
HISTORY_LENGTH = [feature.name for feature in RANKER_FEATURES].index("history_length")
CONTEXT_PEAK = [feature.name for feature in RANKER_FEATURES].index("context_peak")
LARGEST_AFFINITY = 1e3  # taste is within 1, and popularity of its order; beyond, sums would not be numbers
_PLACE_UNIT = 20.0  # of the log-odds: Adam moves every parameter as far in a step, and this one has far to go


class Ranker(nn.Module):
    """features (n, len(RANKER_FEATURES) + d), raw -> probability (n,) of a reward when shown.

    Both heads read one body, so that what people react to at all, which is seen more often, helps to tell what they
    are satisfied with. Further down a slate less is looked at: training adds what a place takes off the log-odds. The
    first place takes nothing off, and serving, which asks before there is a place, knows no other.

    Standardisation, blend (weights of the ranker's log-odds and of the inner product) and calibration are buffers of
    the model, so that they travel into the exported graph: serving passes the features as definitions.ranker_features
    makes them.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    use: torch.Tensor
    blend: torch.Tensor
    slope: torch.Tensor
    levels: torch.Tensor
    intercept: torch.Tensor

    def __init__(self, dimensions: int, form: Form, rank: int = 16, hidden: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        width = len(RANKER_FEATURES) + dimensions
        self.form = form
        self.cross, self.deep = nn.ModuleList(), nn.ModuleList()
        if form > Form.LINEAR:
            self.cross.extend([CrossLayer(width, rank), CrossLayer(width, rank)])
            self.deep.append(nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)))
        self.heads = nn.Linear(width + hidden * len(self.deep), 2)
        self.places = nn.Embedding(PLACES, 2, padding_idx=0)
        nn.init.zeros_(self.places.weight)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("use", _used(width, form))
        self.register_buffer("blend", torch.tensor([1.0, 0.0]))
        self.register_buffer("slope", torch.ones(1))
        self.register_buffer("levels", torch.zeros(3))
        self.register_buffer("intercept", torch.zeros(1))

    def standardised(self, features: torch.Tensor) -> torch.Tensor:
        """Features of mean 0 and deviation 1, within 5 of them."""
        return ((features - self.mean) / self.scale).clamp(-5, 5)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Uncalibrated log-odds (n, 2) in the first place, of a reward and of a click."""
        first = x = self.standardised(features) * self.use
        for layer in self.cross:
            x = layer(first, x)
        output: torch.Tensor = self.heads(torch.cat([x, *(layer(first) for layer in self.deep)], dim=1))
        return output

    def logits_at(self, features: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The same in places (n,) of a slate, from 0."""
        taken: torch.Tensor = self.places(place.clamp(max=PLACES - 1))
        return self.logits(features) + _PLACE_UNIT * taken

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        retrieval = features[:, AFFINITY].clamp(-LARGEST_AFFINITY, LARGEST_AFFINITY)
        order = self.blend[0] * self.logits(features)[:, REWARD] + self.blend[1] * retrieval
        level = (self.levels_of(features) * self.levels).sum(
            dim=1
        )  # a product of three columns takes ONNX Runtime longer
        return torch.sigmoid(self.slope * order + level + self.intercept)

    def levels_of(self, features: torch.Tensor) -> torch.Tensor:
        """(n, 3): what tells people apart, not items: the length of the history, whether there is none, and how much
        the person belongs to one cluster."""
        standard = self.standardised(features)
        nobody_yet = (features[:, HISTORY_LENGTH] <= 0).to(features.dtype)
        return torch.stack([standard[:, HISTORY_LENGTH], nobody_yet, standard[:, CONTEXT_PEAK]], dim=1)

    def standardise(self, features: torch.Tensor) -> None:
        """Sets mean and scale from a sample (n, F). A constant column keeps scale 1. The products of the two vectors
        share one scale, so that no direction of the space is inflated; but for the last, which is no taste."""
        declared = len(RANKER_FEATURES)
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        deviation[declared:-1] = deviation[declared:-1].square().mean().sqrt()
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))


def _used(width: int, form: Form) -> torch.Tensor:
    """(width,) whether the ranker reads a feature. How popular items are lately it reads in the last product, a part of
    the affinity that means the same after every training; how many liked them in two weeks does not
    (infra/decisions/ranker-form.md)."""
    used = (torch.arange(width) < len(RANKER_FEATURES)) | (form == Form.PRODUCTS)
    used[RECENT], used[-1] = False, True
    return used
