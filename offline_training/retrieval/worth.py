"""What taste and popularity are worth to what people do next, and how popular that makes what little is known of."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from feature_store.arrays import Bool, Float64, Int64
from offline_training.retrieval.dataset import Impressions
from offline_training.retrieval.popularity import beyond_expected
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings

MAX_SCORES = 5_000_000  # users times items that the trust in popularity is fitted on
_LEAST = 0.05  # that taste or popularity is worth, and its inverse the most


class Worth(NamedTuple):
    """What is known of how people choose. taste, popularity: factors on the two parts of an inner product that make it
    the log-odds of what was wanted. unmet: how popular an item is, as a level, that the catalogue had and that nobody
    had met, beside one of which nothing at all is known."""

    taste: float = 1.0
    popularity: float = 1.0
    unmet: float = 0.0


def fit_worth(
    model: TwoTower,
    sequences: Sequences,
    until: Int64,
    chosen: Bool,
    popular: Int64,
    met: Int64,
    settings: TrainingSettings,
) -> Worth:
    """How far to trust taste and popularity when it comes to what users did after their first until[u] events: trained
    on its own past, a model takes taste to be known better than it is.

    The weights a, b > 0 in softmax(a <taste> / temperature + b <popularity>), and what stands in place of the second
    term of items that are not among `met`, of the largest likelihood of the later positives (those of events `chosen`,
    if there are any), each user counting once. popular: items that people came to by themselves.
    """
    after: Bool = ~sequences.among_first(until) & sequences.positive
    later = np.flatnonzero(after & chosen if (after & chosen).any() else after)
    items = len(model.tokens) - 1
    users = np.unique(sequences.user[later])
    users = users[:: max(1, len(users) * items // MAX_SCORES)]
    if not len(users):
        return Worth()
    later = later[np.isin(sequences.user[later], users)]
    row = np.searchsorted(users, sequences.user[later])
    vectors = model.item_vectors()
    people = model.user_vectors(
        vectors, sequences.histories(users, until[users], model.history_length), sequences.profile[users]
    )
    taste = people[:, :-1] @ vectors[:, :-1].T / settings.temperature
    weight, level = model.user_tower.weight, vectors[:, -1].astype(np.float64) / settings.temperature
    unmet: Bool = np.ones(items, np.bool_)
    unmet[met] = False
    each = 1 / np.bincount(row)[row]
    wanted = (row, sequences.item[later])

    def loss(guess: NDArray[np.float64]) -> float:
        scores = guess[0] * taste + np.where(unmet, guess[2], guess[1] * weight * level)
        return float((each * (logsumexp(scores, axis=1)[row] - scores[wanted])).sum())

    # It is convex. Nothing is less popular than what is known to be liked by nobody, which adds 0.
    bounds = [(_LEAST, 1 / _LEAST), (_LEAST, 1 / _LEAST), (0.0, np.inf)]
    a, b, unknown = minimize(loss, np.ones(3), method="L-BFGS-B", bounds=bounds).x.tolist()
    if not unmet.any():
        return Worth(a, b)
    return Worth(a, b, min(unknown / (b * weight) - unknown_level(level[popular], b * weight), 0.0))


def unknown_level(levels: Float64, weight: float) -> float:
    """The level that weighs as much as one of (n,) levels does on average, a level x weighing exp(weight x)."""
    return float(logsumexp(weight * levels) - np.log(len(levels))) / weight if len(levels) else 0.0


@torch.no_grad()
def expect_of_unknown(model: TwoTower, popular: Int64, met: Int64, worth: Worth) -> None:
    """Counts from how popular an item is taken to be of which nothing is known: it may be like any of those known.

    popular: items that people came to by themselves. met: those that anybody came to or was shown. Of items that are
    known from slates alone nobody knows how many would have come to them, so they are taken for unknown here, and what
    they proved in slates is added to that. What nobody has met, although the catalogue had it, is worth.unmet.

    A level x weighs exp(w x) in the softmax, w being its weight in the users' vectors and what that is worth; the mean
    of that over the popular items is what an unknown one weighs. It becomes 0: so levels, and what the ranker makes of
    them, mean the same whether much or little has happened lately.
    """
    level = model.item_tower.popularity
    weight = worth.popularity * model.user_tower.weight
    known = torch.from_numpy(popular + 1)
    counted = level[known] - unknown_level(level[known].double().numpy(), weight)
    level[1:] = worth.unmet
    level[0] = 0.0
    level[torch.from_numpy(met + 1)] = 0.0
    level[known] = counted


@torch.no_grad()
def judge_shown(model: TwoTower, impressions: Impressions, settings: TrainingSettings) -> None:
    """Moves how popular items are by what came of them where they were shown; also of those that nobody has liked."""
    if settings.drift:
        level = model.item_tower.popularity[1:]
        level += torch.from_numpy(beyond_expected(impressions, level.double().numpy(), settings)).float()
