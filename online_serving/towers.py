"""The models of a release on ONNX Runtime: user tower, item tower, ranker, and the scorer of item lists.

Training's batch jobs encode and rank through this module too, so that there is one implementation of both.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from feature_store.arrays import Float32, Int64
from feature_store.contracts.errors import ReleaseRefused
from online_serving.release_files import ITEM_TOWER, RANKER, SCORER, USER_TOWER

_PAIR_INPUTS = ["cross", "length", "target", "trigger", "triggers", "user"]
_ERRORS_ONLY = 3


class Towers:
    """The models of one release directory, one thread each: a server scales by processes, not by threads. A release
    without item lists has no scorer of them.

    Raises ReleaseRefused if a model is missing or is not an ONNX model with the inputs of the release format.
    """

    def __init__(self, directory: Path) -> None:
        self._user = _session(directory / USER_TOWER, ["gaps", "history", "kinds", "length", "tokens"])
        (events,) = (entry.shape[1] for entry in self._user.get_inputs() if entry.name == "kinds")
        self.any_length = isinstance(
            events, str
        )  # whether histories may be shorter than the longest: a name is no size
        self._item = _session(directory / ITEM_TOWER, ["id", "tokens"])
        self._ranker = _session(directory / RANKER, ["features"])
        scorer = directory / SCORER
        self._scorer = _session(scorer, _PAIR_INPUTS) if scorer.is_file() else None

    def user_vectors(self, history: Float32, kinds: Int64, gaps: Int64, length: Int64, tokens: Int64) -> Float32:
        """User vectors (B, d), L2-normalised.

        history: (B, L, d) vectors of the items that the user met, oldest first, zeros behind the newest; L is the
        manifest's history_length, or from 1 up to it if `any_length`. kinds, gaps:
        (B, L) definitions.kind_id and gap_buckets. length: (B,) events. tokens: (B, USER_TOKENS) profile token ids.
        """
        inputs: dict[str, Float32 | Int64] = {"history": history, "kinds": kinds, "gaps": gaps}
        return _run(self._user, "vector", inputs | {"length": length, "tokens": tokens})

    def item_vectors(self, tokens: Int64) -> Float32:
        """Vectors (B, d) of items that training has not seen. tokens: (B, ITEM_TOKENS) content token ids."""
        return _run(self._item, "vector", {"id": np.zeros(len(tokens), np.int64), "tokens": tokens})

    def predict(self, features: Float32) -> Float32:
        """Calibrated probability of a reward if shown, (n,), for definitions.ranker_features rows (n, F)."""
        return _run(self._ranker, "probability", {"features": features})

    def score_pairs(
        self, triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
    ) -> Float32:
        """online_serving.item_lists.PairScores. Raises ReleaseRefused if the release has no scorer."""
        if self._scorer is None:
            raise ReleaseRefused("The release has item lists and no model to choose from them. Train again.")
        numbers: dict[str, Float32 | Int64] = {"length": length, "trigger": trigger, "cross": cross}
        return _run(self._scorer, "logit", numbers | {"triggers": triggers, "user": user, "target": target})


def _run(session: ort.InferenceSession, output: str, inputs: Mapping[str, Float32 | Int64]) -> Float32:
    result: Float32 = session.run([output], dict(inputs))[0]
    return result


def _session(path: Path, inputs: list[str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    if not path.is_file():
        raise ReleaseRefused(f"There is no model at {path}. Restore the release, or train again.")
    try:
        session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises a dozen unrelated classes for a damaged model
        raise ReleaseRefused(f"{path} is not a model that ONNX Runtime can run: {error}. Train again.") from None
    found = sorted(entry.name for entry in session.get_inputs())
    if found != inputs:
        raise ReleaseRefused(f"{path} has the inputs {found}, this program feeds {inputs}. Train again.")
    return session
