"""What the Spark job says about the training sets it wrote."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from feature_store.contracts.errors import InvalidInput

_FILE = "summary.json"


@dataclass(frozen=True)
class TrainingSetSummary:
    """What was written; times in ms."""

    users: int
    items: int
    interactions: int
    positives: int
    impressions: int
    first_time: int
    last_time: int
    validation_time: int  # positives from here on are for validation

    def save(self, sets: Path) -> None:
        """Writes it beside the sets."""
        (sets / _FILE).write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, sets: Path) -> "TrainingSetSummary":
        """Reads it back. Raises InvalidInput if there is none."""
        try:
            return cls(**json.loads((sets / _FILE).read_text()))
        except FileNotFoundError:
            raise InvalidInput(f"There is no {sets / _FILE}. Run the training job from its Spark step.") from None
