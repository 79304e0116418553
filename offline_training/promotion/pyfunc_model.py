"""A release as MLflow loads and serves it: recommendations for histories, in any process, by this file and the release.

MLflow runs this file when it loads the model ("models from code"); offline_training/promotion/mlflow_model.py puts both
into the registry, with the packages that it imports. It answers as the API does before its bandit has learnt anything.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from feature_store.definitions import HistoryEvent, kind_of
from feature_store.user_features import UserFeatures
from online_serving.pipeline.features import encode_user
from online_serving.pipeline.offline import two_stage_order
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

CANDIDATES = 200  # of each source, as serving takes them unless told otherwise
SLATE_SIZE = 10
LIKED = kind_of("click", positive=True)  # what an event is taken for whose kind is not said


class ReleaseModel(PythonModel):
    """Recommends unseen items to users by their histories."""

    def load_context(self, context: Any) -> None:
        """Reads the release, every byte of which is checked. Raises ReleaseRefused if one differs."""
        folder = Path(context.artifacts["release"])
        self._snapshot = Snapshot.load(folder.parent, folder.name)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each user: `items`, best first, and `predicted`, their probabilities of a reward.

        model_input: `history`, item ids, the newest first; optionally, parallel to it, `kinds` (as in the log:
        `click+`) and `times` (ms since the epoch), and `profile` (tokens, `age=30`). params: slate_size.
        """
        del context
        size = int((params or {}).get("slate_size", SLATE_SIZE))
        answers = [self._recommend(row, size) for row in model_input.to_dict("records")]
        return pd.DataFrame(answers, columns=["items", "predicted"])

    def _recommend(self, row: Mapping[Hashable, Any], size: int) -> dict[str, list[Any]]:
        snapshot = self._snapshot
        items = _listed(row.get("history"))
        kinds = _listed(row.get("kinds")) or [LIKED] * len(items)
        times = _listed(row.get("times")) or [snapshot.manifest.created] * len(items)
        if not len(items) == len(kinds) == len(times):
            raise ValueError(f"history has {len(items)} items, kinds {len(kinds)}, times {len(times)}.")
        history = [HistoryEvent(str(i), str(k), int(t)) for i, k, t in zip(items, kinds, times, strict=True)]
        features = UserFeatures([str(token) for token in _listed(row.get("profile"))], history, frozenset())
        user = encode_user(snapshot, features, Request(slate_size=size))
        allowed = snapshot.available.copy()
        allowed[snapshot.positions(event.item for event in history)] = False
        best = two_stage_order(snapshot, user, allowed, max(CANDIDATES, size))
        return {"items": snapshot.graph.ids(best.items[:size].tolist()), "predicted": best.predicted[:size].tolist()}


def _listed(value: Any) -> list[Any]:
    """A cell as a list: MLflow gives lists, arrays, or nothing."""
    return list(value) if isinstance(value, list | tuple | np.ndarray) else []


set_model(ReleaseModel())
