"""Fits the ranker, and blends it with retrieval and calibrates it on users it was not fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_store.arrays import Float64
from feature_store.definitions import RANKER_FEATURES
from offline_training.evaluation.metrics import auc, calibration_curve, ece, gauc, log_loss
from offline_training.fitting import FittingTask, TensorBatches, fit
from offline_training.progress import Progress, section
from offline_training.ranking.blend import blended, choose_share
from offline_training.ranking.calibration import platt, steepness
from offline_training.ranking.dataset import RankerRows
from offline_training.ranking.model import AFFINITY, CLICK, REWARD, Form, Ranker
from offline_training.settings import TrainingSettings

FOLDS = 3
BATCH, MIN_BATCH = 512, 32
BATCHES = 20  # of a pass, where there are rows for more than the smallest batches
LEARNING_RATE = {Form.LINEAR: 1e-2, Form.CROSSED: 2e-3, Form.PRODUCTS: 2e-3}
WEIGHT_DECAY = 1e-2
SHOWN_PER_MOMENT = 50  # calibration looks at what stands a chance of being shown: the best of each pool
MIN_IMPRESSIONS, MIN_REWARDED = 500, 25  # from here on calibration uses real impressions alone
BINS = 10
CLICK_SHARE = 0.3  # of the click head in the loss, beside the reward's 1
# A ranker that leans on all-time popularity is a little better within the validation window and a good deal worse in
# the weeks after training (MovieLens-100K by time: NDCG@10 -.005 and +.01, recall@50 +.03): tastes drift away from it,
# and the affinity holds it already. So training hides it at times, and other features learn to do without.
POPULARITY_DROPOUT = 0.3
STANDARD_ERRORS = 2.0  # by which a richer form must be better
PRODUCTS_MUST_GAIN = 0.05  # of the log-loss
POPULARITY = [feature.name for feature in RANKER_FEATURES].index("popularity")


class RankingTask(FittingTask):
    """Batches are (features, targets (n, 2) of the heads, place, weight)."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker, self.rate = ranker, LEARNING_RATE[ranker.form]

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        features, targets, place, weight = batch
        dropped = torch.rand(len(features)) < POPULARITY_DROPOUT
        features = features.clone()
        features[dropped, POPULARITY] = self.ranker.mean[POPULARITY]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            self.ranker.logits_at(features, place), targets, weight=weight.unsqueeze(1), reduction="none"
        ).mean(dim=0)
        return losses[REWARD] + CLICK_SHARE * losses[CLICK]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.rate, weight_decay=WEIGHT_DECAY)


@dataclass(frozen=True)
class FittedRanker:
    """The calibrated ranker, its losses, its metrics on users it was not fitted on, and their calibration curve
    (rows of calibration_curve)."""

    ranker: Ranker
    losses: list[float]
    metrics: dict[str, float]
    curve: Float64

    def state(self) -> dict[str, Any]:
        """All of it, as torch.load reads it with weights_only."""
        ranker = {"form": int(self.ranker.form), "ranker": self.ranker.state_dict()}
        return ranker | {"losses": self.losses, "metrics": self.metrics, "curve": torch.from_numpy(self.curve)}

    @classmethod
    def of(cls, state: Mapping[str, Any], dimensions: int) -> "FittedRanker":
        """What has this state."""
        with torch.random.fork_rng(devices=[]):
            ranker = Ranker(dimensions, Form(state["form"])).eval()
        ranker.load_state_dict(state["ranker"])
        return cls(ranker, state["losses"], state["metrics"], state["curve"].numpy())


def fit_ranker(
    rows: RankerRows,
    dimensions: int,
    settings: TrainingSettings,
    progress: Progress,
    start: Mapping[str, Any] | None = None,
) -> FittedRanker:
    """Chooses, blends, calibrates and fits a ranker.

    start: `form` and `ranker` of FittedRanker.state; then the form is given, and the fit on everybody goes on from
    these weights in one pass. Predictions of held-back users come from fits that begin from nothing all the same, for
    the weights may know these users.

    The forms are cross-fitted over users (FOLDS), and the richer one is chosen if on held-back users it has a lower
    log-loss by more than STANDARD_ERRORS of the difference between users: with a thousand moments a sum of the features
    ranks the weeks after training better than the others do. Stage 2 of the towers moves the space that products are
    learnt in, so that these must gain PRODUCTS_MUST_GAIN, too. On these predictions the form chosen is blended with
    retrieval (blend.choose_share) and the blend calibrated; then the form is fitted again on everybody.

    Metrics, all of the blend and on held-back users: `ranker_logloss`, `ranker_ece`, `ranker_auc` and `ranker_gauc` (by
    moment), beside `retrieval_auc` and `retrieval_gauc` of the inner product alone, and `ranker_click_auc`; a fold's
    probabilities are calibrated on the other folds. `ranker_form` is the Form that won, `ranker_share` what it counts
    beside retrieval, of 1, and `ranker_steepness` how many times as steep as calibrated the order is before one person.
    With fewer than two users nothing can be held back: a sum alone, whose calibration is the identity.
    """
    everybody = np.ones(len(rows), np.bool_)
    people = np.unique(rows.user)
    forms = list(Form) if start is None else [Form(start["form"])]
    if len(people) < 2:
        ranker, losses = _fit(rows, everybody, dimensions, forms[0], settings, progress, start)
        return FittedRanker(ranker, losses, {}, np.zeros((0, 3)))
    fold_of = np.zeros(int(people.max()) + 1, dtype=np.int64)
    fold_of[np.random.default_rng(settings.seed).permutation(people)] = np.arange(len(people)) % FOLDS
    fold = fold_of[rows.user]
    fits = [
        _cross_fit(
            *(rows, fold, form, dimensions, settings),
            section(progress, 0.9 * place / len(forms), 0.9 * (place + 1) / len(forms)),
        )
        for place, form in enumerate(forms)
    ]
    best = reduce(lambda present, richer: richer if _is_better(richer, present) else present, fits)
    ranker, losses = _fit(rows, everybody, dimensions, best.form, settings, section(progress, 0.9, 1.0), start)
    affinity = rows.features[:, AFFINITY].astype(np.float64)
    share = choose_share(rows, best.logits, affinity / settings.temperature)
    scores = blended(share, best.logits, affinity / settings.temperature)
    weight = calibration_weights(rows, scores)
    # The inner product is as good with any constant added, and calibration starts from log-odds.
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-6)
    with torch.no_grad():
        levels = ranker.levels_of(torch.from_numpy(rows.features)).numpy().astype(np.float64)
    standard = (scores - centre) / spread
    found = platt(standard, levels, rows.reward, weight)
    ranker.blend.copy_(torch.tensor([share, (1 - share) / settings.temperature]) / spread)
    ranker.slope.fill_(found.slope)
    ranker.levels.copy_(torch.from_numpy(found.levels))
    ranker.intercept.fill_(found.intercept - found.slope * centre / spread)
    counts = weight > 0
    probability = _calibrated(standard, levels, rows.reward, weight, fold)[counts]
    held_back = (probability, rows.reward[counts])
    metrics = {
        "ranker_logloss": log_loss(*held_back, weight[counts]),
        "ranker_ece": ece(*held_back, BINS, weight[counts]),
        "ranker_auc": auc(scores, rows.reward),
        "ranker_gauc": gauc(scores, rows.reward, rows.moment),
        "ranker_click_auc": auc(best.clicks, rows.clicked),
        "ranker_steepness": steepness(standard, levels, rows.reward, weight, rows.moment, found.slope),
        "ranker_form": float(best.form),
        "ranker_share": share,
        "retrieval_auc": auc(affinity, rows.reward),
        "retrieval_gauc": gauc(affinity, rows.reward, rows.moment),
    }
    return FittedRanker(ranker, losses, metrics, calibration_curve(*held_back, BINS, weight[counts]))


@dataclass(frozen=True)
class _CrossFitted:
    form: Form
    logits: Float64  # of held-back rows, uncalibrated
    clicks: Float64  # the same of a click
    losses: Float64  # (users,) log-loss over all rows of each, summed with their weights


def _is_better(richer: _CrossFitted, present: _CrossFitted) -> bool:
    gain = present.losses - richer.losses
    least = STANDARD_ERRORS * gain.std(ddof=1) * np.sqrt(len(gain))
    if richer.form is Form.PRODUCTS:
        least = max(least, PRODUCTS_MUST_GAIN * present.losses.sum())
    return bool(gain.sum() > least)


def _cross_fit(
    rows: RankerRows,
    fold: NDArray[np.int64],
    form: Form,
    dimensions: int,
    settings: TrainingSettings,
    progress: Progress,
) -> _CrossFitted:
    folds = np.unique(fold)
    heads = np.zeros((len(rows), 2))
    for step, k in enumerate(folds):
        part = section(progress, step / len(folds), (step + 1) / len(folds))
        ranker, _ = _fit(rows, fold != k, dimensions, form, settings, part)
        heads[fold == k] = _logits(ranker, rows.features[fold == k])
    logits = heads[:, REWARD]
    probability = np.clip(_calibrated(logits, np.zeros((len(rows), 0)), rows.reward, rows.weight, fold), 1e-7, 1 - 1e-7)
    loss = -(rows.reward * np.log(probability) + (1 - rows.reward) * np.log1p(-probability)) * rows.weight
    losses = np.bincount(rows.user, loss)[np.unique(rows.user)].astype(np.float64)
    return _CrossFitted(form, logits, heads[:, CLICK], losses)


def _calibrated(
    scores: Float64, levels: Float64, rewards: Float64, weights: Float64, fold: NDArray[np.int64]
) -> Float64:
    """Probabilities (n,), each fold's calibrated on the other folds. Weights are scaled to average 1."""
    scaled = weights / weights[weights > 0].mean()
    probability = np.zeros(len(scores))
    for k in np.unique(fold):
        own, others = fold == k, fold != k
        found = platt(scores[others], levels[others], rewards[others], scaled[others])
        probability[own] = found.probability(scores[own], levels[own])
    return probability


def calibration_weights(rows: RankerRows, logits: Float64) -> Float64:
    """Weights (n,), averaging 1 over the rows that count: real impressions alone if there are enough, else the best
    SHOWN_PER_MOMENT of each moment's pool, where a sampled negative takes as many places as it stands for."""
    shown = rows.shown
    if shown.sum() >= MIN_IMPRESSIONS and rows.reward[shown].sum() >= MIN_REWARDED:
        weight = shown.astype(np.float64)
    else:
        order = np.lexsort((-logits, rows.moment))
        mass = rows.weight[order]
        total = np.cumsum(mass)
        first = np.searchsorted(rows.moment[order], rows.moment[order])
        above = total - mass - (total - mass)[first]  # mass ranked above the row in its moment
        weight = np.zeros(len(rows))
        weight[order] = np.clip(SHOWN_PER_MOMENT - above, 0.0, mass)
    counts = weight > 0
    if counts.any():
        weight = weight / weight[counts].mean()
    return weight


def _fit(
    rows: RankerRows,
    chosen: NDArray[np.bool_],
    dimensions: int,
    form: Form,
    settings: TrainingSettings,
    progress: Progress,
    start: Mapping[str, Any] | None = None,
) -> tuple[Ranker, list[float]]:
    features = torch.from_numpy(rows.features[chosen])
    weight = rows.weight[chosen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        ranker = Ranker(dimensions, form)
        targets = np.stack([rows.reward[chosen], rows.clicked[chosen]], axis=1)
        odds = np.clip(np.average(targets, axis=0, weights=weight) if len(weight) else 0.5, 1e-4, 1 - 1e-4)
        with torch.no_grad():
            ranker.heads.bias.copy_(torch.as_tensor(np.log(odds / (1 - odds))))
        if start is not None:
            learnt = dict(ranker.named_parameters())
            ranker.load_state_dict({name: tensor for name, tensor in start["ranker"].items() if name in learnt}, False)
    ranker.standardise(features)
    weight = weight / weight.mean()
    place = torch.from_numpy(rows.place[chosen])
    size = int(np.clip(len(features) // BATCHES, MIN_BATCH, BATCH))
    tensors = [features, torch.from_numpy(targets).float(), place, torch.from_numpy(weight).float()]
    losses = fit(
        RankingTask(ranker),
        lambda epoch: TensorBatches(tensors, size, settings.seed + epoch),
        epochs=settings.ranker_epochs if start is None else 1,
        seed=settings.seed,
        progress=progress,
        label="ranker",
    )
    return ranker, losses


def _logits(ranker: Ranker, features: NDArray[np.float32]) -> Float64:
    with torch.no_grad():
        return ranker.logits(torch.from_numpy(features)).numpy().astype(np.float64)
