"""Towers and ranker as ONNX files for serving."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from feature_store.definitions import ITEM_TOKENS, RANKER_FEATURES, USER_TOKENS
from offline_training.ranking.model import Ranker
from offline_training.ranking.served_ranker import ServedRanker
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.pi2i.served_scorer import ServedScorer
from offline_training.retrieval.two_tower import TwoTower
from online_serving.item_lists import CROSS, TRIGGERS
from online_serving.release_files import ITEM_TOWER, RANKER, SCORER, USER_TOWER

OPSET = 17
_ROWS = {0: "batch"}


def export_towers(model: TwoTower, directory: Path) -> None:
    """Writes user_tower.onnx and item_tower.onnx, each one file, with a dynamic batch; the user tower takes histories
    of any length up to the model's, the item tower no id but 0: a release has the vectors of the others."""
    length, d = model.history_length, model.dimensions
    user_inputs = {
        "history": torch.zeros(2, length, d),
        "kinds": torch.zeros(2, length, dtype=torch.int64),
        "gaps": torch.zeros(2, length, dtype=torch.int64),
        "length": torch.zeros(2, dtype=torch.int64),
        "tokens": torch.zeros(2, USER_TOKENS, dtype=torch.int64),
    }
    inputs = tuple(user_inputs.values())
    rows = dict.fromkeys((*user_inputs, "id", "vector"), _ROWS)
    axes = rows | dict.fromkeys(("history", "kinds", "gaps"), _ROWS | {1: "events"})
    _export(model.user_tower, inputs, directory / USER_TOWER, tuple(user_inputs), "vector", axes)
    item = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, ITEM_TOKENS, dtype=torch.int64))
    _export(model.item_tower.of_unknown(), item, directory / ITEM_TOWER, ("id", "tokens"), "vector", rows)


def export_ranker(ranker: Ranker, dimensions: int, directory: Path) -> None:
    """Writes ranker.onnx with standardisation and calibration inside."""
    features = torch.zeros(2, len(RANKER_FEATURES) + dimensions)
    axes = {"features": _ROWS, "probability": _ROWS}
    _export(ServedRanker(ranker), (features,), directory / RANKER, ("features",), "probability", axes)


def export_scorer(scorer: PairScorer, dimensions: int, directory: Path) -> None:
    """Writes scorer.onnx, for one user and any number of pairs."""
    users, pairs, d = 1, 3, dimensions
    arguments = (
        torch.zeros(users, TRIGGERS, d),
        torch.ones(users, dtype=torch.int64),
        torch.zeros(users, d),
        torch.zeros(users, pairs, dtype=torch.int64),
        torch.zeros(users, pairs, d),
        torch.zeros(users, pairs, CROSS),
    )
    inputs = ("triggers", "length", "user", "trigger", "target", "cross")
    axes = {name: {1: "pairs"} for name in ("trigger", "target", "cross", "logit")}
    _export(ServedScorer(scorer), arguments, directory / SCORER, inputs, "logit", axes)


def _export(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    output: str,
    axes: Mapping[str, Mapping[int, str]],
) -> None:
    """axes: names of those whose length is dynamic, by input or output."""
    module.eval()
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The tracing exporter announces its successor, which takes ten times as long for the same graph.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                arguments,
                path,
                input_names=list(inputs),
                output_names=[output],
                dynamic_axes={name: dict(axes[name]) for name in (*inputs, output) if name in axes},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        exporter.setLevel(level)
